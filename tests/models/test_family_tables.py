"""Every listed family, at the sizes of its own default configuration and without weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests import tiny_models
from tests.families import NOT_ALONE, TEXT, VISION_LANGUAGE, table
from tests.real_processors import LEFT_OUT, PROCESSORS, REFUSED
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM

from kvw.models.finding import find_value_matrices

pytestmark = pytest.mark.thorough

NOT_BUILDABLE = {
    "aya_vision": "its default configuration is not consistent (embed_dim is no multiple of num_heads)",
    **dict.fromkeys(("dots1", "hunyuan_v1_moe", "lfm2_moe"), "its default configuration leaves sizes open"),
}


def on_meta(factory, model_type):
    config = AutoConfig.for_model(model_type)
    with torch.device("meta"):
        return factory.from_config(config)


def value_matrices_are_those_of_the_text_decoder(model):
    matrices = find_value_matrices(model)
    config = model.config.get_text_config(decoder=True)
    assert {matrix.key.layer for matrix in matrices} == set(range(config.num_hidden_layers))
    assert len({matrix.key for matrix in matrices}) == len(matrices)
    for matrix in matrices:
        assert matrix.hidden == config.hidden_size
        assert not {"vision", "vision_moe", "visual", "encoder", "qformer", "projector"} & set(matrix.name.split("."))
    stated = getattr(config, "intermediate_size", None)
    experts = any(matrix.key.expert is not None for matrix in matrices)
    # lfm2 rounds what its configuration states; gemma3n states it layer by layer.
    return experts or not isinstance(stated, int) or config.model_type == "lfm2" or matrices[0].width == stated


@pytest.mark.parametrize("model_type", [name for name in VISION_LANGUAGE if name not in NOT_BUILDABLE])
def test_vision_language_families(model_type):
    assert value_matrices_are_those_of_the_text_decoder(on_meta(AutoModelForImageTextToText, model_type))


@pytest.mark.parametrize("model_type", [name for name in TEXT if name not in {**NOT_ALONE, **NOT_BUILDABLE}])
def test_text_decoders_alone(model_type):
    factory = AutoModelForSeq2SeqLM if model_type in ("t5", "bart") else AutoModelForCausalLM
    assert value_matrices_are_those_of_the_text_decoder(on_meta(factory, model_type))


def test_the_reasons_for_not_testing_still_hold():
    assert set(NOT_ALONE) <= set(TEXT)
    for model_type in NOT_BUILDABLE:
        factory = AutoModelForImageTextToText if model_type in VISION_LANGUAGE else AutoModelForCausalLM
        with pytest.raises((ValueError, TypeError)):
            on_meta(factory, model_type)


def test_every_family_has_a_real_processor_or_a_reason():
    real = {*PROCESSORS, *tiny_models.FAMILIES} - {"llava_mistral"}
    assert real | set(LEFT_OUT) == set(VISION_LANGUAGE)
    assert not real & set(LEFT_OUT)
    assert set(REFUSED) <= set(LEFT_OUT)


def test_no_name_is_listed_twice():
    assert len(set(VISION_LANGUAGE)) == len(VISION_LANGUAGE)
    assert len(set(TEXT)) == len(TEXT)


def test_the_documented_table_is_current():
    """``python -m tests.families`` renews it."""
    page = Path(__file__).parents[2] / "docs" / "families.md"
    assert page.read_text(encoding="utf-8") == table()
