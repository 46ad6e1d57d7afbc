"""Every listed family, at the sizes of its own default configuration and without weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.families import NOT_ALONE, TEXT, VISION_LANGUAGE, table
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM

from kvw.models.families import find_value_matrices
from kvw.models.value_matrix import linear_shape

NOT_BUILDABLE = {
    "aya_vision": "its default configuration is not consistent (embed_dim is no multiple of num_heads)",
    "fast_vlm": "its vision tower needs the timm package",
}


def on_meta(factory, model_type):
    config = AutoConfig.for_model(model_type)
    with torch.device("meta"):
        return factory.from_config(config)


def value_matrices_are_those_of_the_text_decoder(model):
    matrices = find_value_matrices(model)
    config = model.config.get_text_config(decoder=True)
    assert len(matrices) == config.num_hidden_layers
    for matrix in matrices:
        assert linear_shape(matrix.module) == (matrix.width, config.hidden_size)
        assert matrix.width > matrix.hidden
        assert not {"vision", "visual", "encoder", "qformer", "projector"} & set(matrix.name.split("."))
    stated = getattr(config, "intermediate_size", None)
    # lfm2 rounds what its configuration states.
    return not stated or config.model_type == "lfm2" or matrices[0].width == stated


@pytest.mark.parametrize("model_type", [name for name in VISION_LANGUAGE if name not in NOT_BUILDABLE])
def test_vision_language_families(model_type):
    assert value_matrices_are_those_of_the_text_decoder(on_meta(AutoModelForImageTextToText, model_type))


@pytest.mark.parametrize("model_type", [name for name in TEXT if name not in NOT_ALONE])
def test_text_decoders_alone(model_type):
    factory = AutoModelForSeq2SeqLM if model_type in ("t5", "bart") else AutoModelForCausalLM
    assert value_matrices_are_those_of_the_text_decoder(on_meta(factory, model_type))


def test_the_reasons_for_not_testing_still_hold():
    assert set(NOT_ALONE) <= set(TEXT)
    for model_type in NOT_BUILDABLE:
        with pytest.raises((ValueError, ImportError)):
            on_meta(AutoModelForImageTextToText, model_type)


def test_no_name_is_listed_twice():
    assert len(set(VISION_LANGUAGE)) == len(VISION_LANGUAGE)
    assert len(set(TEXT)) == len(TEXT)


def test_the_documented_table_is_current():
    """``python -m tests.families`` renews it."""
    page = Path(__file__).parents[2] / "docs" / "families.md"
    assert page.read_text(encoding="utf-8") == table()
