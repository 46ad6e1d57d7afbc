"""Value matrices are proven, not guessed."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from kvw.errors import UserError
from kvw.models.candidates import describe_candidates, find_candidates
from kvw.models.detection import confirm_value_matrices
from kvw.models.finding import default_layers, find_value_matrices, select_layers
from kvw.models.value_matrix import MatrixKey


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
    with pytest.raises(UserError, match="not the value projection of an FFN") as caught:
        find_value_matrices(llava)
    assert "layers.2.mlp.down_proj" in str(caught.value)


def test_what_attention_writes_with_is_found_layer_by_layer_before_the_ffn(model):
    both, ffns = find_value_matrices(model, "both"), find_value_matrices(model)
    attention = find_value_matrices(model, "attention")
    assert both == [matrix for pair in zip(attention, ffns, strict=True) for matrix in pair]
    assert both == sorted(both, key=lambda matrix: matrix.key.order)
    for matrix in attention:
        assert matrix.name.endswith(f"layers.{matrix.key.layer}.self_attn.o_proj")
        assert str(matrix.key) == f"layer.{matrix.key.layer}.attention"
        assert MatrixKey.parse(f"{matrix.key}.patterns") == matrix.key


def test_attention_that_is_wired_otherwise_is_refused(llava):
    attention = llava.model.language_model.layers[1].self_attn
    attention.o_proj = torch.nn.Linear(attention.o_proj.in_features, 7, bias=False)
    with pytest.raises(UserError, match=r"layers\.1\.self_attn\.o_proj is not the output projection"):
        find_value_matrices(llava, "both")


def test_of_a_family_confirmed_by_hand_no_attention_is_known(llava):
    ffns = find_value_matrices(llava)
    confirm_value_matrices(llava, "model.language_model.layers.*.mlp.down_proj")
    assert find_value_matrices(llava, "both") == ffns
    with pytest.raises(UserError, match="where this model's attention writes") as caught:
        find_value_matrices(llava, "attention")
    assert "matrices=ffn" in caught.value.do


def test_a_missing_layer_is_refused(llava):
    del llava.model.language_model.layers[3]
    with pytest.raises(UserError, match="not a list of"):
        find_value_matrices(llava)


def test_an_unknown_family_lists_what_was_found():
    config = AutoConfig.for_model("got_ocr2")
    config.text_config.num_hidden_layers = 2
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    with pytest.raises(UserError, match="does not know the vision-language family 'got_ocr2'") as caught:
        find_value_matrices(model)
    assert "2 x model.language_model.layers.*.mlp.down_proj (2816 -> 1024)" in caught.value.found
    assert "--value-matrices 'model.language_model.layers.*.mlp.down_proj'" in caught.value.do


def test_an_unknown_decoder_is_refused(llava):
    llava.config.text_config.model_type = "made_up"
    with pytest.raises(UserError, match="does not know the text decoder 'made_up'"):
        find_value_matrices(llava)


def test_a_model_without_blocks_says_so():
    assert describe_candidates(torch.nn.Linear(4, 2)) == "no repeated linear map that narrows its input"


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
