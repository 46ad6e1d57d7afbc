"""The linear algebra of steering, against the formulas of the paper."""

from __future__ import annotations

import pytest
import torch

import kvw
from kvw.edits.steering import Steer
from kvw.methods.steering.gate import FAIR_AUC, GateReport, auc, held_out_gates
from kvw.methods.steering.method import fit_layer
from kvw.methods.steering.null_space import check_null_space, null_space, solve_filter
from kvw.methods.steering.settings import SteeringSettings

HIDDEN = 24


def states(samples, seed, hidden=HIDDEN):
    return torch.randn(samples, hidden, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("ridge", [0.0, 0.1, 10.0])
@pytest.mark.parametrize(("forget_count", "retain_count"), [(5, 40), (60, 40), (5, 10), (60, 10)])
@pytest.mark.parametrize("ratio", [0.3, 1.0])
def test_two_vectors_are_the_whole_map_of_the_paper(ridge, forget_count, retain_count, ratio):
    """W P = D H_f^T P^T (P H_f H_f^T P^T + gamma P P^T)^+ P is d a^T."""
    forget, retain, direction = states(forget_count, 1), states(retain_count, 2), states(1, 3)[0]
    basis, _ = null_space(retain, ratio=ratio)
    projector = basis @ basis.T
    columns = forget.T
    targets = direction[:, None].expand(-1, forget_count)
    inner = projector @ columns @ columns.T @ projector.T + ridge * projector @ projector.T
    # Of rank k: what rounding leaves of its other eigenvalues must not be inverted.
    whole = targets @ columns.T @ projector.T @ torch.linalg.pinv(inner, rtol=1e-11, hermitian=True) @ projector
    found = torch.outer(direction, solve_filter(forget, basis, ridge))
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-10 * max(1.0, float(whole.abs().max())))


def test_with_the_whole_space_and_no_ridge_forget_states_reach_the_target():
    forget, direction = states(15, 1), states(1, 3)[0]
    basis, _ = null_space(states(40, 2), ratio=1.0)
    assert basis.shape == (HIDDEN, HIDDEN)
    found = solve_filter(forget, basis, 0.0)
    steered = forget + (forget @ found)[:, None] * direction
    torch.testing.assert_close(steered, forget + direction, rtol=0, atol=1e-10)


def test_retain_states_are_not_moved_at_all_where_there_is_a_null_space():
    forget, retain = states(5, 1), states(10, 2)
    basis, eigenvalues = null_space(retain, ratio=0.1)
    assert basis.shape[1] == HIDDEN - 10
    assert float(eigenvalues[: HIDDEN - 10].max()) < 1e-10
    gates = retain @ solve_filter(forget, basis, 0.0)
    assert float(gates.abs().max()) < 1e-10
    torch.testing.assert_close(forget @ solve_filter(forget, basis, 0.0), torch.ones(5, dtype=torch.float64))


def test_ridge_makes_the_filter_smaller():
    basis, _ = null_space(states(40, 2), ratio=0.5)
    sizes = [float(solve_filter(states(9, 1), basis, ridge).norm()) for ridge in (0.0, 0.1, 1.0, 10.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 2 * sizes[-1]


def test_the_size_of_the_null_space():
    retain = states(40, 2)
    assert null_space(retain, ratio=0.3)[0].shape[1] == int(0.3 * HIDDEN)
    basis, eigenvalues = null_space(retain, energy=0.05)
    shares = eigenvalues.cumsum(0) / eigenvalues.sum()
    assert basis.shape[1] == int((shares <= 0.05).sum()) > 0
    assert float((retain @ basis).square().sum() / retain.square().sum()) <= 0.05
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64))
    few = states(10, 2)
    assert null_space(few, ratio=0.3)[0].shape[1] == 14
    assert null_space(few, ratio=0.3, exactly=True)[0].shape[1] == 7
    assert null_space(few, energy=0.0)[0].shape[1] == 14


def test_an_empty_null_space_says_what_to_change():
    basis, _ = null_space(states(40, 2), energy=0.0)
    with pytest.raises(kvw.UserError, match="no direction of layer 3 free") as caught:
        check_null_space(3, basis, ratio=0.3, energy=0.0)
    assert "energy 0 of 24 dimensions" in str(caught.value)
    assert "larger ratio or energy" in str(caught.value)
    with pytest.raises(kvw.UserError, match=r"ratio 0\.01"):
        fit_layer(1, torch.ones(HIDDEN), states(5, 1), states(40, 2), SteeringSettings(ratio=0.01))


def test_auc_counts_pairs():
    assert auc(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == 1.0
    assert auc(torch.tensor([0.0]), torch.tensor([1.0, 2.0])) == 0.0
    assert auc(torch.tensor([1.0, 1.0]), torch.tensor([1.0])) == 0.5
    ones, others = states(7, 1)[:, 0], states(9, 2)[:, 0]
    pairs = (ones[:, None] > others).double().mean()
    assert auc(ones, others) == pytest.approx(float(pairs))


def test_gates_are_judged_on_what_they_were_not_fitted_to():
    forget, retain = states(20, 1), states(30, 2)
    (ones, others) = held_out_gates(forget, retain, lambda kept: null_space(kept, ratio=0.5)[0], 0.1)
    assert (len(ones), len(others)) == (4, 6)
    kept = [torch.arange(len(part)) % 5 != 4 for part in (forget, retain)]
    basis, _ = null_space(retain[kept[1]], ratio=0.5)
    found = solve_filter(forget[kept[0]], basis, 0.1)
    torch.testing.assert_close(ones, forget[4::5] @ found)
    torch.testing.assert_close(others, retain[4::5] @ found)
    assert held_out_gates(forget[:4], retain, lambda kept: null_space(kept)[0], 0.1) is None
    assert held_out_gates(forget, retain, lambda kept: kept[:, :0].T @ kept[:, :0], 0.1) is None


def test_a_layer_is_told_apart_or_warned_about():
    away = states(40, 1) + 6 * torch.eye(HIDDEN, dtype=torch.float64)[0]
    same, retain = states(40, 4), states(400, 2)
    direction, settings = 2 * torch.ones(HIDDEN, dtype=torch.float64), SteeringSettings(ratio=1.0)
    steer, good = fit_layer(2, direction, away, retain, settings)
    _, bad = fit_layer(2, direction, same, retain, settings)
    assert isinstance(steer, Steer)
    torch.testing.assert_close(steer.direction, direction.float())
    basis, _ = null_space(retain, ratio=1.0)
    torch.testing.assert_close(steer.filter, solve_filter(away, basis, 0.1).float())
    assert (good.layer, good.dimensions, good.energy) == (2, HIDDEN, pytest.approx(1.0))
    assert good.auc > FAIR_AUC > bad.auc
    assert good.warnings == []
    assert "layer 2 does not tell the forget set from the retain set" in bad.warnings[0]
    assert good.forget > 0.5 > abs(good.retain)
    assert good.shift == pytest.approx(2 * HIDDEN**0.5)
    _, few = fit_layer(2, direction, away[:3], retain, settings)
    assert few.auc is None
    assert few.warnings == []
    assert isinstance(few, GateReport)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strength": float("nan")}, "strength must be a finite number"),
        ({"ridge": -1}, "ridge must be a number of at least 0"),
        ({"step": "much"}, "step must be"),
        ({"ratio": 0}, "ratio must be a number above 0"),
        ({"ratio": 1.5}, "ratio must be a number above 0 and at most 1"),
        ({"energy": 2.0}, "energy must be"),
        ({"epsilon": 16}, "epsilon must be"),
        ({"where": "all"}, "where must be one of"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number"),
        ({"decoding": 1}, "decoding must be True or False"),
        ({"parity": "yes"}, "parity must be True or False"),
        ({"random_start": None}, "random_start must be True or False"),
        ({"target": " "}, "target must say something"),
        ({"parity": True, "energy": 0.1}, "by ratio"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(kvw.UserError, match=message):
        SteeringSettings(**values)


def test_which_layers_are_steered():
    assert SteeringSettings().chosen_layers(6) == [1, 2, 3, 4, 5]
    assert SteeringSettings(layers=(2, 4), skipped=[3]).chosen_layers(6) == [2, 4]
    assert SteeringSettings().chosen_layers(1) == [0]
    for depth, missing in ((32, 17), (28, 17), (6, 3)):
        assert set(range(1, depth)) - set(SteeringSettings(parity=True).chosen_layers(depth)) == {missing}
    with pytest.raises(kvw.UserError, match="0:6 does not fit"):
        SteeringSettings(layers=(0, 6)).chosen_layers(6)
    with pytest.raises(kvw.UserError, match="No layer is left"):
        SteeringSettings(layers=(2, 2), skipped=(2,)).chosen_layers(6)
