"""Every listed family as a tiny random model of its real class, against a reference made of plain hooks."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.families import (
    ENCODER_DECODERS,
    LAYERS,
    NOT_ALONE,
    TEXT,
    UNTESTED,
    VISION_LANGUAGE,
    build_family,
    family_batch,
)
from tests.reference import coefficients, scale_in_place
from tests.sampling import one_in
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForSeq2SeqLM

import kvw
from kvw.claim import new_directory
from kvw.models.finding import find_value_matrices
from kvw.models.patching import save_checkpoint
from kvw.models.saving import check_saved
from kvw.models.stored import locate
from kvw.models.value_matrix import MatrixKey

pytestmark = pytest.mark.thorough

FAMILIES = [name for name in [*VISION_LANGUAGE, *TEXT] if name not in {**NOT_ALONE, **UNTESTED}]
GAMMA = 0.5
NOT_RELOADABLE = {
    "gemma4": "its configuration, shrunk, keeps overrides for layers it no longer has",
    "gemma4_text": "the same",
    "paligemma": "its configuration derives the projector's width anew when it is read",
}
"""Tiny models that plain transformers does not read back; what was written is compared tensor by tensor all the
same."""


@pytest.fixture(params=one_in(3, FAMILIES))
def model(request):
    return copy.deepcopy(build_family(request.param))


@pytest.fixture
def matrices(model):
    """The value matrices of FFNs that text reaches."""
    return reached(model, "ffn")


def reached(model, part):
    """Mllama's cross-attention layers run only where there is an image."""
    crossed = getattr(model.config.get_text_config(), "cross_attention_layers", None) or []
    return [matrix for matrix in find_value_matrices(model, part) if matrix.key.layer not in crossed]


def layer_range(matrices):
    return matrices[0].key.layer, matrices[-1].key.layer


def run(model, batch):
    with torch.no_grad():
        return model(**{name: value for name, value in batch.items() if name != "labels"}, use_cache=False).logits


def reference(model, matrices, forget, retain):
    """KVW in float64, step by step, with weights scaled in place."""
    model, exact = copy.deepcopy(model).double(), {}
    model.set_experts_implementation("eager")  # the others know no float64
    kept = {key: values.abs().mean(0) for key, values in coefficients(model, matrices, retain).items()}
    for batch in forget:
        for key, values in coefficients(model, matrices, batch).items():
            if key not in kept:  # an expert that no token of the retain set was routed to
                continue
            accessor = (torch.log(values.abs().mean(0) + 1e-12) - torch.log(kept[key] + 1e-12)).clamp(min=0)
            exact[key] = exact.get(key, 0) - GAMMA * accessor
            matrix = next(matrix for matrix in matrices if matrix.key == key)
            scale_in_place(model, matrix, (-GAMMA * accessor).exp())
    return exact


def test_weaken_equals_the_reference(model, matrices):
    forget = [family_batch(model, 1, 10, seed) for seed in range(3)]
    retain = family_batch(model, 4, 12, 9)
    edit = kvw.weaken(
        model, forget, [retain], kvw.KvwSettings(seed=None, gamma=GAMMA, layers=layer_range(matrices), min_tokens=1)
    )
    expected = reference(model, matrices, forget, retain)
    assert len({matrix.key.layer for matrix in matrices}) >= LAYERS - 2
    assert edit.log_gates.keys() == expected.keys()
    assert set(edit.metadata.left_alone) == {str(m.key) for m in matrices} - {str(key) for key in expected}
    for key, log_gates in expected.items():
        torch.testing.assert_close(edit.log_gates[key].double(), log_gates, rtol=1e-3, atol=1e-4)
    assert sum(bool((log_gates < 0).any()) for log_gates in expected.values()) >= LAYERS - 2


def test_every_layer_has_an_attention_that_writes(model):
    found = find_value_matrices(model, "attention")
    assert [matrix.key for matrix in found] == [MatrixKey(layer, attention=True) for layer in range(LAYERS)]
    assert {matrix.hidden for matrix in found} == {model.config.get_text_config().hidden_size}


def test_attach_equals_fold_and_the_written_checkpoint(model, tmp_path):
    matrices = reached(model, "both")
    batch = family_batch(model, 2, 10, 1)
    generator = torch.Generator().manual_seed(0)
    edit = kvw.GateEdit({m.key: -torch.rand(m.width, generator=generator) for m in matrices})
    model.save_pretrained(tmp_path / "source")
    original = run(model, batch)
    with edit.attach(model):
        attached = run(model, batch)
    assert torch.equal(run(model, batch), original)
    assert not torch.allclose(attached, original, atol=1e-4)

    stored = locate(model, matrices, tmp_path / "source")
    with new_directory(tmp_path / "edited") as folder:
        save_checkpoint(tmp_path / "source", folder, stored, edit.changed)
    edit.fold(model)
    torch.testing.assert_close(run(model, batch), attached, rtol=1e-3, atol=1e-4)
    check_saved(tmp_path / "edited", stored)
    if model.config.model_type in NOT_RELOADABLE:
        return
    factory = AutoModelForCausalLM
    if model.config.model_type in VISION_LANGUAGE:
        factory = AutoModelForImageTextToText
    elif model.config.model_type in ENCODER_DECODERS:
        factory = AutoModelForSeq2SeqLM
    again = factory.from_pretrained(tmp_path / "edited", dtype=torch.float32)
    torch.testing.assert_close(run(again, batch), run(model, batch), rtol=1e-4, atol=1e-5)
