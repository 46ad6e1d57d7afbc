"""Unknown decoders: found by structure, used after confirmation, refused when two places could be meant."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.batches import logits, text_batch
from tests.families import ENCODER_DECODERS, build_family
from tests.models.test_family_parity import FAMILIES
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

import kvw
from kvw.models.detection import detect, ffns
from kvw.models.finding import UnknownFamily, find_value_matrices

pytestmark = pytest.mark.thorough

TWO_PLACES = ("gemma3n", "gemma3n_text", "gemma4", "gemma4_text")
"""Their layers hold small projections of other kinds that are wired like an FFN."""


@pytest.mark.parametrize("name", FAMILIES)
def test_structure_and_tables_agree(name):
    model = build_family(name)
    matrices = find_value_matrices(model)
    assert_no_ffn_is_missed(name, model)
    found = [{entry.template.replace("*", str(layer), 1) for layer in range(entry.count)} for entry in detect(model)]
    if name in ENCODER_DECODERS or any(matrix.key.expert is not None for matrix in matrices):
        assert found == []
    else:
        assert len(found) == (len(found) if name in TWO_PLACES else 1)
        assert {matrix.name for matrix in matrices} in found


def assert_no_ffn_is_missed(name, model):
    """Shared experts and dense layers among sparse ones, too: whatever a layer holds that is built like an FFN."""
    names = {matrix.name for matrix in find_value_matrices(model)}
    layers = {matrix.key.layer: matrix.name for matrix in find_value_matrices(model)}
    hidden = model.config.get_text_config().hidden_size
    for number, example in layers.items():
        path = example[: example.index(f".{number}.") + len(f".{number}")]
        for place, _ in ffns(model.get_submodule(path), hidden):
            other = name in TWO_PLACES and "mlp" not in place
            vision = "vision" in place  # Ernie's experts for image tokens
            assert f"{path}.{place}" in names or other or vision


@pytest.fixture
def unknown(llava):
    llava.config.model_type = "made_up"
    return llava


def test_an_unknown_family_is_found_and_must_be_confirmed(unknown):
    with pytest.raises(UnknownFamily, match="does not know the vision-language family 'made_up'") as caught:
        find_value_matrices(unknown)
    template = "model.language_model.layers.*.mlp.down_proj"
    assert caught.value.found.startswith(f"by structure: 4 x {template} (")
    assert f"--value-matrices '{template}'" in caught.value.do
    kvw.confirm_value_matrices(unknown, template)
    assert [matrix.name for matrix in find_value_matrices(unknown)] == [
        template.replace("*", str(layer)) for layer in range(4)
    ]
    assert find_value_matrices(copy.deepcopy(unknown))


def test_an_edit_knows_where_it_belongs(unknown, tmp_path):
    template = "model.language_model.layers.*.mlp.down_proj"
    fresh = copy.deepcopy(unknown)
    kvw.confirm_value_matrices(unknown, template)
    batch = text_batch(2, 10, 3, seed=0)
    edit = kvw.weaken(unknown, [batch], [text_batch(3, 10, 3, seed=1)], kvw.KvwSettings(seed=None, gamma=1.0))
    edit.metadata = edit.metadata.model_copy(update={"value_matrices": template})
    edit.save(tmp_path / "edit.safetensors")
    again = kvw.load_edit(tmp_path / "edit.safetensors")
    with again.attach(fresh), edit.attach(unknown):
        assert torch.equal(logits(fresh, batch), logits(unknown, batch))


class Two(nn.Module):
    """Two FFNs in one layer, and nothing that tells which is meant."""

    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = copy.deepcopy(first)


def test_two_candidates_are_both_listed(unknown):
    for layer in unknown.model.language_model.layers:
        layer.mlp = Two(layer.mlp)
    with pytest.raises(UnknownFamily, match="does not know") as caught:
        find_value_matrices(unknown)
    for name in ("first", "second"):
        assert f"model.language_model.layers.*.mlp.{name}.down_proj" in caught.value.found
    assert "choose one" in caught.value.do
    kvw.confirm_value_matrices(unknown, "model.language_model.layers.*.mlp.second.down_proj")
    assert all("second" in matrix.name for matrix in find_value_matrices(unknown))


@pytest.mark.parametrize(
    "template",
    [
        "model.vision_tower.vision_model.encoder.layers.*.mlp.fc2",
        "model.language_model.layers.*.self_attn.o_proj",
        "model.language_model.layers.0.mlp.down_proj",
        "nonsense",
    ],
)
def test_only_what_is_wired_like_an_ffn_of_the_decoder_can_be_confirmed(unknown, template):
    with pytest.raises(kvw.UserError, match="is not the value projection") as caught:
        kvw.confirm_value_matrices(unknown, template)
    assert "model.language_model.layers.*.mlp.down_proj" in caught.value.found


def test_a_full_size_model_that_the_tables_do_not_list():
    config = AutoConfig.for_model("got_ocr2")
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    (found,) = detect(model)
    assert str(found) == "24 x model.language_model.layers.*.mlp.down_proj (2816 -> 1024)"
