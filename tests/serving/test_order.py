"""What ``A+B`` means for edits whose order matters."""

from __future__ import annotations

import copy

import pytest
import torch

from kvw.edits import Directions, LowRankEdit
from kvw.models.finding import find_value_matrices


def low_rank(model, seed):
    generator = torch.Generator().manual_seed(seed)
    directions = {}
    for matrix in find_value_matrices(model):
        basis = torch.linalg.qr(torch.randn(matrix.width, 8, generator=generator))[0]
        directions[matrix.key] = Directions(basis, basis, torch.full((8,), -3.0))
    return LowRankEdit(directions)


def test_the_second_acts_on_what_the_first_has_left(llava):
    """Attached A, then B is W T_B T_A: what folding B, then A gives."""
    first, second = low_rank(llava, 1), low_rank(llava, 2)
    token_ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        with first.attach(llava), second.attach(llava):
            attached = llava(input_ids=token_ids).logits
        folded = {}
        for name, edits in (("second, first", (second, first)), ("first, second", (first, second))):
            model = copy.deepcopy(llava)
            for edit in edits:
                edit.fold(model)
            folded[name] = model(input_ids=token_ids).logits
    scale = float(attached.abs().max())
    assert float((attached - folded["second, first"]).abs().max()) == pytest.approx(0, abs=1e-4 * scale)
    assert float((attached - folded["first, second"]).abs().max()) > 1e-2 * scale
