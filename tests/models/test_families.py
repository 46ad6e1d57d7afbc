"""Value matrices are proven, not guessed."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Idefics3Config, Idefics3ForConditionalGeneration

from kvw.errors import UserError
from kvw.models.candidates import describe_candidates, find_candidates
from kvw.models.families import default_layers, find_value_matrices, select_layers


def test_every_text_layer_is_found_and_nothing_of_the_vision_tower(model):
    matrices = find_value_matrices(model)
    config = model.config.get_text_config()
    assert [matrix.key.layer for matrix in matrices] == list(range(config.num_hidden_layers))
    for matrix in matrices:
        assert matrix.module.weight.shape == (config.hidden_size, config.intermediate_size)
        assert model.get_submodule(matrix.name) is matrix.module
        assert "vision" not in matrix.name
        assert "visual" not in matrix.name


def test_a_wrong_shape_is_refused(llava):
    layer = llava.model.language_model.layers[2].mlp
    layer.down_proj = torch.nn.Linear(7, layer.down_proj.out_features, bias=False)
    with pytest.raises(UserError, match="not the value projection") as caught:
        find_value_matrices(llava)
    assert "layers.2.mlp.down_proj" in str(caught.value)


def test_a_missing_layer_is_refused(llava):
    del llava.model.language_model.layers[3]
    with pytest.raises(UserError, match="not a list of"):
        find_value_matrices(llava)


def test_an_unknown_family_lists_what_was_found():
    config = Idefics3Config(
        text_config={
            "model_type": "llama",
            "hidden_size": 16,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "vocab_size": 50,
            "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 16,
            "patch_size": 8,
        },
    )
    with torch.device("meta"):
        model = Idefics3ForConditionalGeneration(config)
    with pytest.raises(UserError, match="does not know the vision-language family 'idefics3'") as caught:
        find_value_matrices(model)
    assert "2 x model.text_model.layers.*.mlp.down_proj (40 -> 16)" in caught.value.found
    assert "llava" in caught.value.do


def test_a_text_model_without_linear_layers_says_so():
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=20, n_positions=8))
    assert describe_candidates(model) == "no repeated linear map that narrows its input"
    with pytest.raises(UserError, match="'gpt2'"):
        find_value_matrices(model)


def test_candidates_are_grouped_over_blocks(llava):
    templates = {candidate.template: candidate.count for candidate in find_candidates(llava)}
    assert templates["model.language_model.layers.*.mlp.down_proj"] == len(llava.model.language_model.layers)


def test_a_model_with_an_adapter_is_refused(llava):
    llava.peft_config = {}
    with pytest.raises(UserError, match="merge"):
        find_value_matrices(llava)


@pytest.mark.parametrize(("count", "expected"), [(28, (1, 25)), (32, (1, 29)), (4, (1, 1)), (3, (0, 0)), (1, (0, 0))])
def test_default_layers(count, expected):
    assert default_layers(count) == expected


@pytest.mark.parametrize("layers", [(-1, 2), (0, 99), (2, 1)])
def test_layer_ranges_outside_the_model_are_refused(llava, layers):
    with pytest.raises(UserError, match="does not fit this model"):
        select_layers(find_value_matrices(llava), layers)
