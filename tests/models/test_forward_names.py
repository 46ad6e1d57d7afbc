"""What the forward of a model takes, under the names of the installed transformers and of others."""

import pytest
from torch import nn

import kvw
from kvw.models.forward_names import cache_name, given_cache, named_arguments, takes


class Newer(nn.Module):
    def forward(self, input_ids, cache=None, logits_to_keep=0):
        pass


class Older(nn.Module):
    def forward(self, input_ids, past_key_values=None):
        pass


class Without(nn.Module):
    def forward(self, input_ids):
        pass


@pytest.mark.parametrize(("model", "name"), [(Newer(), "cache"), (Older(), "past_key_values")])
def test_the_cache_is_found_by_signature(model, name):
    assert cache_name(model) == name


def test_a_real_model_fills_the_cache_under_that_name_and_returns_it(model):
    name = cache_name(model)
    assert takes(model, name)
    inputs = dict(model.dummy_inputs)
    cache = model(input_ids=inputs["input_ids"], use_cache=True)[name]
    assert cache.get_seq_length() == inputs["input_ids"].shape[1]
    assert model(input_ids=inputs["input_ids"], use_cache=True, **{name: cache})[name] is cache


def test_a_forward_without_a_cache_is_told():
    with pytest.raises(kvw.UserError, match="keys and values of earlier tokens") as error:
        cache_name(Without())
    assert "Without.forward(input_ids)" in str(error.value)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_cache_is_seen_under_whichever_name_it_comes(name):
    cache = object()
    assert given_cache({"input_ids": 1, name: cache}) is cache
    assert given_cache({"input_ids": 1, name: None}) is None


def test_arguments_by_place_get_the_names_of_the_signature():
    assert named_arguments(Newer(), (1, 2), {"logits_to_keep": 3}) == {
        "input_ids": 1,
        "cache": 2,
        "logits_to_keep": 3,
    }
    assert takes(Newer(), "logits_to_keep")
    assert not takes(Older(), "logits_to_keep")
