"""The identities that pin subspace weakening down, (a) to (l)."""

from __future__ import annotations

import math

import pytest
import torch
from tests.batches import joined, padded, text_batch
from tests.methods.subspace.data import HIDDEN, WIDTH, applied, given, layer, operator, tokens
from torch.testing import assert_close

import kvw
from kvw.edits.low_rank import Directions, LowRankEdit
from kvw.measuring.moment_passes import measure_moments
from kvw.methods.subspace import bounds, gates
from kvw.methods.subspace.baselines import formulas
from kvw.methods.subspace.baselines.settings import LeaceSettings, MemitZeroSettings, RmsKvwSettings
from kvw.methods.subspace.labels import Labels
from kvw.methods.subspace.null import LeftOut, least_threshold, null_eigenvalues, threshold
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.methods.subspace.shrinkage import shrink
from kvw.methods.subspace.solver import metric, reduced_metric, solve
from kvw.methods.subspace.vectors import view_means
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def exponential(eigenvalues, gamma=1.0, tau=0.3):
    return gates.exponential(eigenvalues, gamma, tau)


def full_gates(values, vectors, gate):
    """V diag(g - 1) V^T with orthonormal V and the gate of eigenvalues, null directions left alone."""
    change = torch.where(values > 1e-9, torch.expm1(gate(values.clamp(min=1e-9))), torch.zeros_like(values))
    return vectors * change @ vectors.T


def test_a_square_root_cholesky_and_generalised_forms_give_the_same_operator():
    data = layer()
    moment = shrink(data.moment, 0.1)
    values, basis = torch.linalg.eigh(moment)
    root, inverse_root = basis * values.sqrt() @ basis.T, basis / values.sqrt() @ basis.T
    factor = torch.linalg.cholesky(moment)
    covariance = data.vectors @ data.vectors.T
    by_root = (
        root @ full_gates(*torch.linalg.eigh(inverse_root @ covariance @ inverse_root), exponential) @ inverse_root
    )
    whitened = torch.linalg.solve_triangular(factor, data.vectors, upper=False)
    inner = full_gates(*torch.linalg.eigh(whitened @ whitened.T), exponential)
    by_cholesky = factor @ inner @ torch.linalg.inv(factor)
    modes = solve(metric(data.moment, 0.1), data.vectors)
    generalised = operator(modes, exponential(modes.eigenvalues)) - torch.eye(WIDTH)
    assert_close(by_root, generalised, rtol=1e-8, atol=1e-8)
    assert_close(by_cholesky, generalised, rtol=1e-8, atol=1e-8)
    scale = moment.diagonal().sqrt()
    assert_close(by_root / scale[:, None] * scale, by_cholesky / scale[:, None] * scale, **EXACT)
    assert generalised.norm() > 1


def test_b_the_thin_solver_is_the_full_one():
    """Against a decomposition of the whole width, and without any matrix of that size from retain vectors alone."""
    data = layer(retain=30)
    found = metric(data.moment, 0.1)
    thin = solve(found, data.vectors)
    full = torch.linalg.eigvals(torch.linalg.solve(found.moment, data.vectors @ data.vectors.T)).real.sort().values
    assert thin.rank == 6
    assert_close(full.flip(0)[:6], thin.eigenvalues, rtol=1e-8, atol=0)
    identity = torch.eye(6, dtype=torch.float64)
    assert_close(thin.filters.T @ found.moment @ thin.filters, identity, rtol=0, atol=1e-8)
    assert_close(thin.filters.T @ thin.patterns, identity, rtol=0, atol=1e-8)
    covariance = data.vectors @ data.vectors.T
    assert_close(covariance @ thin.filters, thin.patterns * thin.eigenvalues, rtol=1e-7, atol=1e-8)
    reduced = solve(reduced_metric(data.retain / 30**0.5, 0.1), data.vectors)
    assert_close(reduced.eigenvalues, thin.eigenvalues, rtol=1e-8, atol=0)
    log_gates = exponential(thin.eigenvalues)
    assert_close(operator(reduced, log_gates), operator(thin, log_gates), rtol=1e-7, atol=1e-8)


def test_c_the_retain_distortion_is_the_squared_norm_of_b():
    data = layer()
    found = metric(data.moment, 0.1)
    modes = solve(found, data.vectors)
    log_gates = exponential(modes.eigenvalues)
    change = data.weight @ operator(modes, log_gates) - data.weight
    distortion = bounds.distortion(data.weight, modes.patterns, log_gates)
    assert distortion == pytest.approx(float((change @ found.moment @ change.T).trace()), rel=1e-9)
    raw = bounds.raw_distortion_bound(data.weight, modes.patterns, modes.filters, log_gates, found)
    assert raw == pytest.approx(float((change @ data.retain).square().sum() / 400), rel=1e-9)
    assert raw <= distortion / (1 - found.shrinkage)


def test_d_the_wiener_gate_is_memit_with_a_target_of_zero():
    data, mu = layer(), 0.7
    found = metric(data.moment, 0.1)
    covariance = data.vectors @ data.vectors.T
    expected = data.weight @ found.moment / mu @ torch.linalg.inv(found.moment / mu + covariance)
    changed = data.weight @ applied(formulas.memit_zero(given(data), MemitZeroSettings(mu=mu)))
    assert_close(changed, expected, rtol=1e-8, atol=1e-8)
    modes = solve(found, data.vectors)
    changed = data.weight @ operator(modes, gates.wiener(modes.eigenvalues, mu))
    assert_close(changed, expected, rtol=1e-8, atol=1e-8)


def test_e_gates_of_zero_take_all_forget_vectors_out():
    data = layer()
    modes = solve(metric(data.moment, 0.1), data.vectors)
    removed = operator(modes, gates.hard(modes.eigenvalues, -math.inf)) @ data.vectors
    assert_close(removed, torch.zeros_like(removed), rtol=0, atol=1e-9 * float(data.vectors.abs().max()))
    erased = data.weight @ applied(formulas.leace(given(data), LeaceSettings())) @ data.vectors
    assert_close(erased, torch.zeros_like(erased), rtol=0, atol=1e-9 * float(data.vectors.abs().max()))


def test_f_diagonal_moments_are_kvw_with_root_mean_squares():
    data = layer()
    mean_squares = data.moment.diagonal()
    energies = data.vectors.square().sum(1)
    modes = solve(metric(torch.diag(mean_squares), 0.0), torch.diag(energies.sqrt()))
    rms = (data.forget.square().mean(1) / data.retain.square().mean(1)).sqrt()
    expected = (-1.5 * rms.log().clamp(min=0)).exp()
    assert_close(operator(modes, exponential(modes.eigenvalues, 1.5, 0.0)), torch.diag(expected), **EXACT)
    assert_close(formulas.rms_log_gates(given(data), RmsKvwSettings(gamma=1.5)).exp(), expected, **EXACT)
    assert float(expected.min()) < 0.5


@pytest.mark.parametrize("shrinkage", [0.03, 0.1, 0.5])
@pytest.mark.parametrize("gate", ["exponential", "thresholded wiener", "hard"])
def test_g_equal_forget_and_retain_data_give_no_edit(gate, shrinkage):
    data = layer()
    modes = solve(metric(data.moment, shrinkage), data.retain / data.retain.shape[1] ** 0.5)
    least = least_threshold(shrinkage, 1.0)
    assert least == pytest.approx(-0.5 * math.log(1 - shrinkage))
    assert float(modes.eigenvalues.max()) <= 1 / (1 - shrinkage)
    log_gates = gates.log_gates(modes.eigenvalues, SubspaceSettings(gate=gate), least)
    assert torch.equal(operator(modes, log_gates), torch.eye(WIDTH, dtype=torch.float64))


def test_h_strengths_add_up():
    data = layer()
    modes = solve(metric(data.moment, 0.1), data.vectors)
    log_gates = exponential(modes.eigenvalues)
    first, second = operator(modes, 0.3 * log_gates), operator(modes, 1.1 * log_gates)
    assert_close(first @ second, operator(modes, 1.4 * log_gates), rtol=1e-8, atol=1e-8)
    identity = torch.eye(WIDTH, dtype=torch.float64)
    assert_close(operator(modes, -log_gates) @ operator(modes, log_gates), identity, rtol=1e-7, atol=1e-7)


def test_i_rotations_and_scales_of_neurons_do_not_matter():
    data = layer()
    generator = torch.Generator().manual_seed(5)
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64))[0]
    scale = torch.randn(WIDTH, generator=generator, dtype=torch.float64).exp()
    plain, shrunk = solve(metric(data.moment, 0.0), data.vectors), solve(metric(data.moment, 0.1), data.vectors)
    turned = solve(metric(rotation @ data.moment @ rotation.T, 0.0), rotation @ data.vectors)
    rescaled = solve(metric(data.moment * scale * scale[:, None], 0.1), data.vectors * scale[:, None])
    before = operator(plain, exponential(plain.eigenvalues))
    after = rotation.T @ operator(turned, exponential(turned.eigenvalues)) @ rotation
    assert_close(after, before, rtol=1e-7, atol=1e-7)
    before = operator(shrunk, exponential(shrunk.eigenvalues))
    after = operator(rescaled, exponential(rescaled.eigenvalues)) * scale / scale[:, None]
    assert_close(after, before, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("arrangement", ["one by one", "reversed", "left", "right", "two processes"])
def test_j_padding_batch_order_and_processes_do_not_change_moments(llava, arrangement):
    singles = [text_batch(1, 6 + index, 2 + index % 3, seed=index) for index in range(6)]
    matrices = find_value_matrices(llava.double())

    def moments(batches):
        return measure_moments(llava, batches, matrices, dtype=torch.float64)[0]

    expected = moments([joined(singles)])
    if arrangement == "two processes":
        first, second = moments(singles[:2]), moments(singles[2:])
        found = {key: first[key] + second[key] for key in first}
    else:
        batches = {
            "one by one": singles,
            "reversed": [joined(singles[3:][::-1]), joined(singles[:3][::-1])],
            "left": [padded(batch, 4, 0) for batch in singles],
            "right": [padded(batch, 0, 5) for batch in singles],
        }
        found = moments(batches[arrangement])
    assert found.keys() == expected.keys()
    # On the left, padding shifts rotary positions, whose angles the model rounds to float32.
    tolerance = {"rtol": 1e-3, "atol": 1e-5} if arrangement == "left" else {"rtol": 1e-9, "atol": 1e-12}
    for key, moment in expected.items():
        assert_close(found[key].mean, moment.mean, **tolerance)
        assert found[key].count == moment.count
        assert found[key].shares == pytest.approx(moment.shares)


def test_k_the_merged_low_rank_adapter_is_the_edited_matrix(llava):
    """A = V^T, B = W U (g - 1): W + B A = W T, which is what the edit folds in."""
    matrix = find_value_matrices(llava)[2]
    data = layer(width=matrix.width)
    modes = solve(metric(data.moment, 0.1), data.vectors)
    log_gates = exponential(modes.eigenvalues)
    weight = matrix.read().double()
    reader, writer = modes.filters.T, weight @ modes.patterns * torch.expm1(log_gates)
    assert reader.shape == (6, matrix.width)
    merged = weight + writer @ reader
    assert_close(merged, weight @ operator(modes, log_gates), **EXACT)
    edit = LowRankEdit({matrix.key: Directions(modes.patterns, modes.filters, log_gates)})
    assert_close(edit.changed(matrix, weight), merged, rtol=1e-4, atol=1e-4)
    assert matrix.key == MatrixKey(2)
    assert kvw.find_value_matrices(llava)[2].hidden == weight.shape[0] != HIDDEN


@pytest.mark.parametrize(("width", "forget", "retain"), [(200, 100, 1000), (200, 60, 2000), (150, 150, 600)])
def test_l_white_data_reach_the_null_edge(width, forget, retain):
    """((1 + sqrt(a + b - a b)) / (1 - b))^2 with a = p / n_f, b = p / n_r, without shrinkage."""
    generator = torch.Generator().manual_seed(width + forget)
    kept = torch.randn(width, retain, generator=generator, dtype=torch.float64)
    other = torch.randn(width, forget, generator=generator, dtype=torch.float64)
    modes = solve(metric(kept @ kept.T / retain, 0.0), other / forget**0.5)
    a, b = width / forget, width / retain
    edge = ((1 + math.sqrt(a + b - a * b)) / (1 - b)) ** 2
    assert float(modes.eigenvalues[0]) == pytest.approx(edge, rel=0.1)
    assert edge > 5


def test_the_null_of_left_out_examples_is_that_of_new_ones():
    """Taking tokens out by algebra is measuring S without them, up to the diagonal that S was shrunk towards."""
    data = layer(retain=120)
    left, others = data.retain[:, :20], data.retain[:, 20:]
    found = metric(data.moment, 0.1)
    shares = torch.full((20,), 1 / 120, dtype=torch.float64)
    leaving = LeftOut.of(found, left, shares)
    without = 0.9 * others @ others.T / 120 + 0.1 * torch.diag(data.moment.diagonal())
    assert_close(leaving.without(), left.T @ torch.linalg.solve(without, left), rtol=1e-8, atol=1e-8)
    filters = torch.linalg.solve(without, data.vectors)
    by_algebra = leaving.projected(left.T @ torch.linalg.solve(found.moment, data.vectors))
    assert_close(by_algebra, left.T @ filters, rtol=1e-8, atol=1e-8)
    columns = view_means(tokens(left), Labels())
    eigenvalues = null_eigenvalues(leaving, columns, 20)
    expected = solve(metric(without, 0.0), left / 20**0.5).eigenvalues
    assert_close(eigenvalues.sort(descending=True).values, expected, rtol=1e-6, atol=1e-8)
    assert threshold(eigenvalues, 1.0, 0.0) == pytest.approx(0.5 * math.log(float(expected[0])))
    unseen = LeftOut.of(found, left, torch.zeros(20, dtype=torch.float64)).without()
    assert float(torch.linalg.eigvalsh(unseen)[-1]) < float(torch.linalg.eigvalsh(leaving.without())[-1])
