"""Round to nearest in groups, against the formula written out by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.families import build_family
from tests.fixtures import built
from tests.gradient import changed, fresh, weights_of

from kvw.errors import UserError
from kvw.evaluation.attacks import quantise_weight, quantised


def by_hand(weight, bits, group):
    rows = []
    for row in weight.tolist():
        found = []
        for start in range(0, len(row), group):
            part = row[start : start + group]
            step = max(map(abs, part)) / (2 ** (bits - 1) - 1)
            found += [step * round(value / step) if step else 0.0 for value in part]
        rows.append(found)
    return torch.tensor(rows, dtype=weight.dtype)


@pytest.mark.parametrize(("bits", "group"), [(8, 128), (4, 128), (4, 3), (2, 2)])
def test_the_formula_written_out_for_a_small_matrix(bits, group):
    weight = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight[2] = 0
    found = quantise_weight(weight, bits, group)
    torch.testing.assert_close(found, by_hand(weight, bits, group), rtol=1e-12, atol=1e-12)
    for row in range(5):
        for start in range(0, 8, group):
            assert len(found[row, start : start + group].unique()) <= 2**bits - 1


def test_numbers_that_can_be_followed():
    weight = torch.tensor([[7.0, 3.4, -3.6, 0.4], [0.0, 0.0, 0.07, -0.034]])
    expected = torch.tensor([[7.0, 3.0, -4.0, 0.0], [0.0, 0.0, 0.07, -0.03]])
    torch.testing.assert_close(quantise_weight(weight, 4), expected)
    # Of a value of bfloat16 the result is the nearest bfloat16.
    assert torch.equal(quantise_weight(weight.bfloat16(), 4), quantise_weight(weight.bfloat16().float(), 4).bfloat16())


def test_more_bits_and_smaller_groups_are_nearer():
    weight = torch.randn(4, 256, generator=torch.Generator().manual_seed(2))
    errors = [float((quantise_weight(weight, *how) - weight).norm()) for how in ((8, 128), (4, 32), (4, 128), (4, 256))]
    assert errors == sorted(errors)
    assert errors[0] < errors[1] / 10
    assert quantise_weight(weight, 4).equal(quantise_weight(weight, 4, 128))


def test_linear_maps_of_the_language_part_change_and_nothing_else(family):
    model = copy.deepcopy(built(family)[0]).eval()
    before = weights_of(model)
    with quantised(model, 4):
        found = changed(model, before)
        for name in found:
            assert torch.equal(model.state_dict()[name], quantise_weight(before[name], 4))
    assert found
    assert all(".layers." in name and name.endswith("proj.weight") for name in found), found
    assert not any("vision" in name or "visual" in name for name in found)
    wanted = {name for name in before if "language_model" in name and name.endswith("proj.weight")}
    assert found == wanted


def test_inputs_may_come_first():
    """GPT-2 keeps (inputs, outputs)."""
    model = copy.deepcopy(build_family("gpt2")).eval()
    before = weights_of(model)
    with quantised(model, 4, group=8):
        name = next(name for name in changed(model, before) if name.endswith("mlp.c_proj.weight"))
        assert torch.equal(model.state_dict()[name], quantise_weight(before[name].T, 4, 8).T)
    assert changed(model, before) == set()


def test_what_cannot_be_quantised_is_refused():
    model, _ = fresh()
    for bits in (1, 9):
        with pytest.raises(UserError, match="2 to 8 bits"), quantised(model, bits):
            pass
    with pytest.raises(UserError, match="Experts"), quantised(copy.deepcopy(build_family("qwen3_moe")).eval(), 4):
        pass
