"""Every listed family, at the sizes of its own default configuration and without weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM

from kvw.models.families import DECODERS, FAMILIES, find_value_matrices
from kvw.models.value_matrix import linear_shape

VISION_LANGUAGE = [name for family in FAMILIES for name in family.model_types]
TEXT = [name for decoder in DECODERS for name in decoder.model_types]
NOT_ALONE = {
    "glm4v_text": "only inside glm4v and glm46v",
    "mllama_text_model": "its causal model is a class of its own, covered by mllama",
    "molmo2_text": "only inside molmo2",
    "qwen2_5_vl_text": "only inside qwen2_5_vl",
    "qwen2_vl_text": "only inside qwen2_vl",
    "qwen3_vl_text": "only inside qwen3_vl",
}
NOT_BUILDABLE = {
    "aya_vision": "its default configuration is not consistent (embed_dim is no multiple of num_heads)",
    "fast_vlm": "its vision tower needs the timm package",
}


def shrunk(config):
    """Few layers, so that nothing large is built even on the meta device; widths stay as they are."""
    for part in (config, config.get_text_config(decoder=True), getattr(config, "vision_config", None)):
        for name in ("num_hidden_layers", "decoder_layers", "encoder_layers", "num_layers", "num_decoder_layers"):
            if isinstance(getattr(part, name, None), int):
                setattr(part, name, min(4, getattr(part, name)))
        if isinstance(getattr(part, "layer_types", None), list):
            part.layer_types = part.layer_types[:4]
    return config


def on_meta(factory, model_type):
    config = AutoConfig.for_model(model_type)
    with torch.device("meta"):
        return factory.from_config(config)


def check(model):
    matrices = find_value_matrices(model)
    config = model.config.get_text_config(decoder=True)
    assert len(matrices) == config.num_hidden_layers
    for matrix in matrices:
        assert linear_shape(matrix.module) == (matrix.width, config.hidden_size)
        assert matrix.width > matrix.hidden
        assert not {"vision", "visual", "encoder", "qformer", "projector"} & set(matrix.name.split("."))
    stated = getattr(config, "intermediate_size", None)
    if stated and config.model_type != "lfm2":  # lfm2 rounds what its configuration states
        assert matrices[0].width == stated


@pytest.mark.parametrize("model_type", [name for name in VISION_LANGUAGE if name not in NOT_BUILDABLE])
def test_vision_language_families(model_type):
    check(on_meta(AutoModelForImageTextToText, model_type))


@pytest.mark.parametrize("model_type", [name for name in TEXT if name not in NOT_ALONE])
def test_text_decoders_alone(model_type):
    factory = AutoModelForSeq2SeqLM if model_type in ("t5", "bart") else AutoModelForCausalLM
    check(on_meta(factory, model_type))


def test_the_reasons_for_not_testing_still_hold():
    assert set(NOT_ALONE) <= set(TEXT)
    for model_type in NOT_BUILDABLE:
        with pytest.raises((ValueError, ImportError)):
            on_meta(AutoModelForImageTextToText, model_type)


def test_no_name_is_listed_twice():
    assert len(set(VISION_LANGUAGE)) == len(VISION_LANGUAGE)
    assert len(set(TEXT)) == len(TEXT)
    assert nn.Linear(2, 3).weight.shape == (3, 2)
