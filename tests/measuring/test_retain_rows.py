"""Rows that stand for a second moment."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.batches import joined, padded, text_batch
from tests.families import build_family, family_batch

import kvw
from kvw.measuring.layerwise import Layers, WaitingSet
from kvw.measuring.moment_passes import measure_moments
from kvw.measuring.plans import Examples, every_example
from kvw.measuring.retain_rows import _Rows, _Sample
from kvw.methods.subspace.directions import Measurements, find_directions
from kvw.methods.subspace.labels import Labels
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.models.finding import find_value_matrices

BATCHES = [text_batch(2, 12, 4, seed=0), text_batch(1, 9, 2, seed=1), text_batch(3, 14, 3, seed=2)]
POSITIONS = 2 * 12 + 9 + 3 * 14 - 6  # the last token of every row predicts nothing and is no source
EVERYTHING = 1000


def sampled(model, batches, limit, **options):
    """Rows in the first layer, and kept tokens."""
    group = [matrix for matrix in find_value_matrices(model) if matrix.key.layer == 0]
    found, kept = WaitingSet.entered(Layers(model, group), batches, **options).rows(group, limit)
    return (found, kept) if group[0].key.expert is not None else (found[group[0].key], kept.get(group[0].key))


def test_all_rows_give_the_moment(llava):
    (matrix, *_) = find_value_matrices(llava)
    weights = [1.0, 3.0, 0.5, 2.0, 1.0, 0.1]
    found, _ = sampled(llava, BATCHES, EVERYTHING, examples=Examples(weights))
    (moment,) = measure_moments(llava, BATCHES, [matrix], examples=Examples(weights))[0].values()
    torch.testing.assert_close(found.vectors @ found.vectors.T, moment.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.masses, moment.masses)
    assert found.shares == pytest.approx(moment.shares)
    assert found.count == moment.count == len(found.weights)


def test_experts_have_samples_of_their_own():
    model = copy.deepcopy(build_family("qwen3_moe"))
    batches = [family_batch(model, 3, 12, seed) for seed in range(3)]
    moments = measure_moments(model, batches, find_value_matrices(model))[0]
    found, _ = sampled(model, batches, EVERYTHING)
    assert len(found) > 1
    for key, rows in found.items():
        torch.testing.assert_close(rows.vectors @ rows.vectors.T, moments[key].mean, rtol=1e-4, atol=1e-5)
    few, _ = sampled(model, batches, 5)
    assert {len(rows.weights) for rows in few.values()} == {5}


def test_a_sample_has_so_many_rows_and_weighs_about_as_much_as_all(llava):
    every, _ = sampled(llava, BATCHES, EVERYTHING)
    found, _ = sampled(llava, BATCHES, 20)
    assert found.coefficients.shape == (20, every.coefficients.shape[1])
    assert torch.equal(found.masses, every.masses)
    assert found.count == every.count
    assert float(found.weights.sum()) == pytest.approx(float(found.masses.sum()), rel=0.3)
    assert bool(torch.isin(found.coefficients[:, 0], every.coefficients[:, 0]).all())


def test_batches_and_padding_choose_the_same_rows(llava):
    llava.double()
    expected, _ = sampled(llava, BATCHES, 20)
    order = expected.weights.argsort()
    arranged = {
        "one batch": [joined(BATCHES)],
        "left": [padded(batch, 3, 0) for batch in BATCHES],
        "right": [padded(batch, 0, 4) for batch in BATCHES],
    }
    for batches in arranged.values():
        found, _ = sampled(llava, batches, 20)
        torch.testing.assert_close(found.weights.sort().values, expected.weights[order])
        if batches is not arranged["left"]:  # this model numbers padded positions, so its numbers change a little
            largest = found.weights.argsort()
            torch.testing.assert_close(
                (found.coefficients[largest].T * found.weights[largest]) @ found.coefficients[largest],
                (expected.coefficients[order].T * expected.weights[order]) @ expected.coefficients[order],
            )


@pytest.mark.thorough
def test_samples_are_right_on_average():
    """Of sums over all rows and over some of them."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(60, generator=generator, dtype=torch.float64) ** 3 + 0.01
    some = torch.arange(60) % 3 == 0
    values = torch.arange(60.0)[:, None]
    totals = []
    for _ in range(1500):
        draws = 1 - torch.rand(60, generator=generator, dtype=torch.float64)
        sample = _Sample(10)
        for part in (slice(0, 25), slice(25, 60)):
            number = torch.arange(60)[part]
            sample.add(_Rows(values[part], (weights / draws)[part], weights[part], number, number))
        found = sample.finished()
        assert len(found.weights) == 10
        totals.append((float(found.weights.sum()), float(found.weights[some[found.rows]].sum())))
    mean = torch.tensor(totals).mean(0)
    torch.testing.assert_close(mean[0], weights.sum().float(), rtol=0.02, atol=0)
    torch.testing.assert_close(mean[1], weights[some].sum().float(), rtol=0.05, atol=0)


def test_subjects_have_about_as_many_rows_as_they_count(llava):
    """Nine examples of one subject and one of another, each subject counting the same."""
    batches = [text_batch(1, 20, 9, seed=seed) for seed in range(10)]
    examples = Examples([1 / 9] * 9 + [1.0], keep=every_example)
    found, _ = sampled(llava, batches, 16, examples=examples)
    answers = found.rows[found.rows >= 0]
    assert 2 <= int((answers == 9).sum()) <= len(answers) - 2


def test_tokens_have_the_share_that_their_row_has(llava):
    options = {"examples": Examples(keep=lambda row: row % 2 == 0)}
    every, kept = sampled(llava, BATCHES, EVERYTHING, **options)
    torch.testing.assert_close(every.shares_of(kept), kept.weights / every.masses.sum())
    found, kept = sampled(llava, BATCHES, 12, **options)
    shares = found.shares_of(kept)
    sampled_tokens = shares > 0
    assert 0 < int(sampled_tokens.sum()) < len(shares)
    assert int(sampled_tokens.sum()) == int((found.rows >= 0).sum())
    for place in sampled_tokens.nonzero()[:, 0].tolist():
        own = (found.rows == kept.rows[place]) & (found.offsets == kept.offsets[place])
        assert torch.equal(found.coefficients[own][0], kept.coefficients[place])
        assert float(shares[place]) == pytest.approx(float(found.weights[own] / found.masses.sum()))


def test_overflow_is_named(llava):
    llava.model.language_model.layers[0].mlp.up_proj.weight.data[3, 4] = float("inf")
    matrices = find_value_matrices(llava)[:1]
    with pytest.raises(kvw.UserError, match="not finite"):
        WaitingSet.entered(Layers(llava, matrices), BATCHES).rows(matrices, 50)


def test_a_sample_of_nothing_is_a_programming_error():
    with pytest.raises(RuntimeError, match="without rows"):
        _Sample(3).finished()


def test_rows_have_no_folds_to_cross_validate(llava):
    found, kept = sampled(llava, BATCHES, 12, examples=Examples(keep=every_example))
    (matrix, *_) = find_value_matrices(llava)
    measured = Measurements(matrix.key, found, kept, None, matrix.read())
    with pytest.raises(ValueError, match="no folds"):
        find_directions(measured, SubspaceSettings(shrinkage="cross-validated"), Labels(), Labels())
