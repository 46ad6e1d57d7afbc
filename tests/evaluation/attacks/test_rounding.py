"""Storing in 16 bits: what is asked is what folding into such a checkpoint gives."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.evaluation.attacks.edits import weakening
from tests.gradient import changed, fresh, weights_of

from kvw.edits.surviving import surviving_share, surviving_shares
from kvw.errors import UserError
from kvw.evaluation.attacks import folded, rounded
from kvw.models.finding import find_value_matrices


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [0.002, 0.4])
def test_the_model_asked_is_the_edit_folded_into_a_stored_model(dtype, size):
    model, _ = fresh()
    edit, stored = weakening(model, size=size), copy.deepcopy(model).to(dtype)
    originals = {matrix.key: matrix.read().clone() for matrix in find_value_matrices(stored)}
    expected = surviving_shares(edit, stored)
    assert surviving_shares(edit, model, dtype) == expected
    edit.fold(stored)
    with rounded(model, dtype, lambda given: folded(given, edit)):
        assert changed(model, {name: value.to(torch.float32) for name, value in weights_of(stored).items()}) == set()
        for matrix in find_value_matrices(model):
            weight = originals[matrix.key]
            exact = edit.changed(matrix, weight.double()) - weight.double()
            assert surviving_share(weight, matrix.read(), exact) == expected[matrix.key]
    assert model.dtype == torch.float32


def test_small_edits_are_rounded_away_and_large_ones_are_not():
    model, _ = fresh()
    small, large = (
        min(surviving_shares(weakening(model, size=size), model, torch.bfloat16).values()) for size in (0.002, 0.4)
    )
    assert small < 0.5 < 0.99 < large


def test_what_does_not_fit_is_refused():
    model, _ = fresh()
    with pytest.raises(UserError, match="16 bits"), rounded(model, torch.float32):
        pass
    with torch.no_grad():
        model.get_output_embeddings().weight[0, 0] = 1e6
    before = weights_of(model)
    with pytest.raises(UserError, match="does not fit into"), rounded(model, torch.float16):
        pass
    assert changed(model, before) == set()
