"""The parts of subspace weakening, one after the other."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tests.methods.subspace.data import WIDTH, layer, operator, tokens
from torch.testing import assert_close

import kvw
from kvw.edits.low_rank import REMOVED
from kvw.methods.bounds import DistortionBounds
from kvw.methods.subspace import bounds, gates
from kvw.methods.subspace.cross_validation import cross_validated
from kvw.methods.subspace.directions import split_views
from kvw.methods.subspace.labels import EverySoManyth, EveryThirdView, Labels, labels_of
from kvw.methods.subspace.null import LeftOut, least_threshold, null_eigenvalues, threshold
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.methods.subspace.shrinkage import floored_diagonal, ledoit_wolf, shrink
from kvw.methods.subspace.solver import metric, reduced_metric, solve
from kvw.methods.subspace.vectors import view_means


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Shrinkage.


def test_shrinking_keeps_the_diagonal_and_fades_the_rest():
    moment = layer().moment
    shrunk = shrink(moment, 0.25)
    assert torch.equal(shrunk.diagonal(), moment.diagonal())
    off = ~torch.eye(WIDTH, dtype=torch.bool)
    assert_close(shrunk[off], 0.75 * moment[off])
    assert torch.equal(moment, layer().moment)


def test_dead_neurons_get_a_thousandth_of_the_median():
    energies = torch.tensor([0.0, 1.0, 4.0, 9.0])
    assert_close(floored_diagonal(energies), torch.tensor([0.004, 1.0, 4.0, 9.0]))
    with pytest.raises(kvw.UserError, match="does not use a single neuron"):
        floored_diagonal(torch.zeros(3))


def test_a_dead_neuron_has_a_finite_ratio():
    data = layer()
    silent = data.retain.clone()
    silent[3] = 0
    modes = solve(metric(silent @ silent.T / 400, 0.1), data.vectors)
    assert bool(modes.eigenvalues.isfinite().all())
    reduced = solve(reduced_metric(silent / 400**0.5, 0.1), data.vectors)
    assert_close(reduced.eigenvalues, modes.eigenvalues, rtol=1e-8, atol=0)


def test_ledoit_wolf_finds_the_intensity_that_minimises_the_error():
    """Against the true moment, on average over draws, with groups as independent observations."""
    mixing = random(12, 12, seed=3)
    truth = mixing @ mixing.T
    groups = [
        [values @ values.T / 8 for values in (mixing @ random(12, 8, seed=100 * draw + group) for group in range(6))]
        for draw in range(40)
    ]
    scale = truth.diagonal().rsqrt()

    def error(intensity):
        total = 0.0
        for moments in groups:
            mean = torch.stack(moments).mean(0)
            shrunk = (1 - intensity) * mean + intensity * torch.diag(mean.diagonal())
            total += float((((shrunk - truth) * scale * scale[:, None]) ** 2).sum())
        return total

    best = min((value / 100 for value in range(0, 60)), key=error)
    assert sum(ledoit_wolf(moments) for moments in groups) / 40 == pytest.approx(best, abs=0.05)
    assert ledoit_wolf([truth, truth]) == 0
    assert ledoit_wolf([torch.diag(truth.diagonal())] * 2) == 0


def test_cross_validation_shrinks_more_where_there_are_fewer_retain_examples():
    found = {}
    for count in (20, 2000):
        data = layer(retain=3 * count, forget=12)
        folds = [part @ part.T / count for part in data.retain.split(count, dim=1)]
        fitted, held_out = data.forget[:, :6] / 6**0.5, data.forget[:, 6:] / 6**0.5
        found[count] = cross_validated(folds, data.weight, fitted, held_out, candidates=(0.003, 0.03, 0.3))
        assert found[count] >= ledoit_wolf(folds)
    assert found[20] > found[2000]


@pytest.mark.thorough
def test_cross_validation_scores_the_output_distortion_on_the_fold_left_out():
    """By hand for one candidate after the other: dense operators, bisection replaced by a fine grid."""
    data = layer(retain=90, forget=8)
    folds = [part @ part.T / 30 for part in data.retain.split(30, dim=1)]
    fitted, held_out = data.forget[:, :4] / 2, data.forget[:, 4:] / 2
    totals = {}
    for candidate in (0.01, 0.5):
        totals[candidate] = 0.0
        for left_out in range(3):
            mean = sum(fold for index, fold in enumerate(folds) if index != left_out) / 2
            modes = solve(metric(mean, candidate), fitted)
            before = (data.weight @ held_out).square().sum()
            for power in torch.linspace(-20, 20, 4001).tolist():
                changed = data.weight @ operator(modes, gates.wiener(modes.eigenvalues, 2.0**power))
                if (changed @ held_out).square().sum() <= 0.8 * before:
                    break
            change = changed - data.weight
            totals[candidate] += float((change @ folds[left_out] @ change.T).trace())
    expected = max(min(totals, key=totals.get), ledoit_wolf(folds))
    found = cross_validated(folds, data.weight, fitted, held_out, candidates=(0.01, 0.5), residual=0.8)
    assert found == pytest.approx(expected)


# Solver.


def test_a_singular_moment_is_shrunk_more_or_refused():
    few = layer(retain=5).moment
    assert metric(few, 0.0).shrinkage == 0.01
    assert metric(few, 0.2).shrinkage == 0.2
    with pytest.raises(kvw.UserError, match="too singular"):
        metric(torch.full((3, 3), float("nan")).fill_diagonal_(1.0), 0.1)


def test_single_precision_is_enough_and_double_takes_over_where_it_is_not():
    data = layer()
    single = solve(metric(data.moment.float(), 0.1), data.vectors.float())
    double = solve(metric(data.moment, 0.1), data.vectors)
    assert single.patterns.dtype == torch.float32
    assert_close(single.eigenvalues, double.eigenvalues, rtol=1e-4, atol=0)
    basis = torch.linalg.qr(random(WIDTH, WIDTH))[0]
    hard = basis * torch.logspace(0, -6.3, WIDTH, dtype=torch.float64) @ basis.T
    hard = (hard + hard.T) / 2
    vectors = random(WIDTH, 4, seed=1).float()
    found = solve(metric(hard.float(), 0.0), vectors)
    assert found.patterns.dtype == torch.float64
    assert_close(hard.float().double() @ found.filters, found.patterns, rtol=1e-5, atol=1e-5)


def test_repeated_forget_vectors_add_no_directions():
    data = layer()
    twice = torch.cat([data.vectors, data.vectors], dim=1) / 2**0.5
    once, double = solve(metric(data.moment, 0.1), data.vectors), solve(metric(data.moment, 0.1), twice)
    assert double.rank == once.rank == 6
    assert_close(double.eigenvalues, once.eigenvalues, rtol=1e-8, atol=0)
    assert solve(metric(data.moment, 0.1), torch.zeros(WIDTH, 3).double()).rank == 0
    assert solve(metric(data.moment, 0.1), torch.zeros(WIDTH, 0).double()).rank == 0


def test_more_forget_vectors_than_neurons():
    data = layer(forget=100)
    modes = solve(metric(data.moment, 0.1), data.vectors)
    assert modes.rank == WIDTH
    assert_close(modes.filters.T @ modes.patterns, torch.eye(WIDTH).double(), rtol=0, atol=1e-7)


def test_the_reduced_path_needs_a_diagonal():
    data = layer(retain=10)
    with pytest.raises(ValueError, match="above 0"):
        reduced_metric(data.retain, 0.0)
    diagonal = solve(metric(torch.diag((data.retain @ data.retain.T).diagonal()), 0.0), data.vectors)
    assert_close(
        solve(reduced_metric(data.retain, 1.0), data.vectors).eigenvalues, diagonal.eigenvalues, rtol=1e-8, atol=0
    )


# Gates.


def test_gates_by_hand():
    eigenvalues = torch.tensor([0.5, math.e**2, math.e**4], dtype=torch.float64)
    assert_close(gates.exponential(eigenvalues, 3.0, 1.5), torch.tensor([0, 0, -1.5]).double())
    assert_close(gates.wiener(eigenvalues, 2.0).exp(), 1 / (1 + 2 * eigenvalues))
    above = (1 + 0.5 * (eigenvalues - math.e**2).clamp(min=0)) ** -1
    assert_close(gates.thresholded_wiener(eigenvalues, 0.5, 1.0).exp(), above)
    assert gates.hard(eigenvalues, 1.5).tolist() == [0, 0, REMOVED]
    assert gates.removed_below(torch.tensor([-1.0, -4.0]), 0.02).tolist() == [-1.0, REMOVED]
    assert gates.removed_below(torch.tensor([-1.0, -4.0]), 0.0).tolist() == [-1.0, -4.0]


@pytest.mark.parametrize("gate", ["exponential", "wiener", "thresholded wiener", "hard"])
def test_gates_never_rise_with_the_ratio(gate):
    eigenvalues = torch.logspace(-6, 6, 50, dtype=torch.float64)
    found = gates.log_gates(eigenvalues, SubspaceSettings(gate=gate), 1.0)
    assert bool((found <= 0).all() and (found.diff() <= 0).all())
    assert float(found[-1]) == REMOVED
    below = found[0.5 * eigenvalues.log() <= 1.0]
    assert bool((below == 0).all()) == (gate != "wiener")


def test_the_exponential_gate_with_gamma_two_falls_off_as_a_wiener_gate():
    far = torch.tensor([1e8], dtype=torch.float64)
    ratio = gates.exponential(far, 2.0, 0.7) - gates.wiener(far, math.exp(-1.4))
    assert_close(ratio, torch.zeros(1).double(), rtol=0, atol=1e-6)


# Null.


def test_thresholds_are_quantiles_but_never_too_low():
    eigenvalues = torch.linspace(1, 101, 101, dtype=torch.float64)
    assert threshold(eigenvalues, 0.9, 0.0) == pytest.approx(0.5 * math.log(91))
    assert threshold(eigenvalues, 0.9, 5.0) == 5.0
    assert threshold(torch.zeros(3), 0.9, -1.0) == -1.0
    assert least_threshold(0.1, 0.5) == pytest.approx(-0.5 * math.log(0.45))
    assert least_threshold(1.0, 0.5) == 0
    assert least_threshold(0.1, 0.0) == 0


def test_the_null_has_as_many_columns_as_the_forget_moment():
    data = layer(retain=24)
    found = metric(layer().moment, 0.1)
    columns = view_means(tokens(data.retain), Labels())
    leaving = LeftOut.of(found, data.retain, torch.zeros(24))
    by_draws = null_eigenvalues(leaving, columns, 10)
    expected = [solve(found, data.retain[:, draw::2] / 12**0.5).eigenvalues for draw in range(2)]
    expected = torch.cat(expected).sort().values
    assert_close(by_draws.sort().values, expected, rtol=1e-7, atol=1e-9)
    assert len(null_eigenvalues(leaving, columns, 100)) == 24


# Vectors and labels.


def test_views_of_a_fact_are_averaged_position_by_position():
    values = torch.arange(12.0).view(2, 6)
    recorded = tokens(values, rows=[0, 0, 1, 1, 2, 3], offsets=[0, 1, 0, 1, 0, 0])
    labels = Labels(facts=["a", "a", "b", "c"], subjects=["A", "A", "A", "B"])
    columns = view_means(recorded, labels)
    assert_close(columns.weights, torch.tensor([0.25, 0.25, 0.25, 0.25]).double())
    expected = torch.stack([values[:, [0, 2]].mean(1), values[:, [1, 3]].mean(1), values[:, 4], values[:, 5]], dim=1)
    assert_close(columns.values, expected / 2)
    assert columns.subjects == ("A", "A", "A", "B")
    assert_close(values.double() @ columns.mixing, columns.values.double())
    single = view_means(recorded, Labels())
    assert single.values.shape == (2, 6)
    assert single.subjects == (0, 0, 1, 1, 2, 3)


def test_means_never_hold_more_energy_than_their_tokens():
    """Whatever the answers' lengths and weights: this is why equal sets give no edit with view means either."""
    values = random(5, 9)
    recorded = tokens(values, rows=[0, 0, 0, 1, 1, 2, 3, 3, 3], offsets=[0, 1, 2, 0, 1, 0, 0, 1, 2])
    means = view_means(recorded, Labels(facts=["a", "a", "b", "b"]))
    each = view_means(recorded, Labels())
    difference = each.values @ each.values.T - means.values @ means.values.T
    assert float(torch.linalg.eigvalsh(difference)[0]) > -1e-12
    weights = recorded.weights / recorded.weights.sum()
    assert_close(each.values @ each.values.T, values * weights @ values.T)


def test_labels_give_weights_and_folds_by_subject():
    labels = Labels(subjects=["x", "y", "x", "z", "y", "x"])
    assert labels.weights() == pytest.approx([1 / 3, 1 / 2, 1 / 3, 1, 1 / 2, 1 / 3])
    assert labels.folds() == [0, 1, 0, 2, 1, 0]
    assert labels.folds(2) == [0, 1, 0, 0, 1, 0]
    assert Labels().weights() is None
    assert (Labels().fact(4), Labels(facts="abcde").subject(4), labels.subject(1)) == (4, "e", "y")
    with pytest.raises(kvw.UserError, match="goes by subject"):
        labels.folds(4)
    with pytest.raises(kvw.UserError, match="goes by subject"):
        Labels().folds()
    with pytest.raises(kvw.UserError, match="more examples than subjects"):
        labels.subject(6)


def test_every_third_view_is_kept_out_if_every_fact_has_one():
    keep_out = EveryThirdView(Labels(facts="aabaab"))
    assert [keep_out(row) for row in range(6)] == [False, False, False, True, False, False]
    recorded = tokens(random(3, 6))
    assert split_views(recorded, Labels(facts="aabaab"))[1] is None
    assert split_views(recorded, Labels())[1] is None
    fitted, held_out = split_views(recorded, Labels(facts="aabbba"))
    assert (fitted.rows.tolist(), held_out.rows.tolist()) == ([0, 1, 2, 3], [4, 5])


def test_what_is_asked_by_photo_is_another_fact_than_what_is_asked_by_name():
    by_name, by_photo = (kvw.Example("Who?", "Ada", images, metadata={"subject": "a"}) for images in ((), ("a.png",)))
    labels = labels_of([by_name, by_photo, by_photo])
    assert labels.fact(0) != labels.fact(1) == labels.fact(2)
    assert labels.subject(0) == labels.subject(1)


def test_the_null_takes_every_second_view_of_every_so_many_th_fact():
    takes_part = EverySoManyth(Labels(facts="aabaabca"), 2)
    assert [takes_part(row) for row in range(8)] == [True, False, False, True, False, False, True, True]
    takes_part = EverySoManyth(Labels(), 3)
    assert [takes_part(row) for row in range(7)] == [True, False, False, True, False, False, True]


# Distortion bounds.


def test_sources_are_bounded_by_their_share():
    found = bounds.source_bounds(0.9, {"answer": 0.5, "image": 0.25, "first": 0.0})
    assert found == pytest.approx({"answer": 1.8, "image": 3.6})


def test_held_out_eigenvalues_are_energies_of_data_that_were_not_fitted():
    data, other = layer(), layer(seed=9)
    modes = solve(metric(data.moment, 0.1), data.vectors)
    fitted = bounds.held_out_eigenvalues(modes.filters, data.vectors, torch.ones(6))
    assert_close(fitted, modes.eigenvalues, rtol=1e-8, atol=0)
    energies = (modes.filters.T @ other.retain).square().mean(1)
    ratios = bounds.held_out_eigenvalues(modes.filters, other.vectors, energies)
    assert_close(ratios, (modes.filters.T @ other.vectors).square().sum(1) / energies)


def test_spread_is_flat_for_a_form_and_peaked_for_a_person():
    filters = torch.eye(4).double()
    values = torch.tensor([[1.0, 1, 1, 1], [2, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]).double()
    recorded = tokens(values)
    columns = view_means(recorded, Labels(subjects=["x", "y", "z", "z"]))
    # z has two columns: what counts is the mean energy of a subject.
    assert_close(bounds.participation_ratio(filters, columns), torch.tensor([1, 1 / 3, 2 / 3, 1 / 3]).double())


def test_a_reduced_metric_is_the_metric_of_the_same_rows():
    data = layer(retain=24)
    retain = data.retain / 24**0.5
    for shrinkage in (0.1, 1.0):
        full, reduced = metric(data.moment, shrinkage), reduced_metric(retain, shrinkage)
        vectors = data.forget
        assert_close(reduced.gram(vectors), full.gram(vectors), rtol=1e-8, atol=1e-8)
        assert_close(reduced.inverse(vectors), torch.linalg.solve(full.moment, vectors), rtol=1e-7, atol=1e-8)
        assert_close(reduced.moment @ vectors, full.moment @ vectors, rtol=1e-10, atol=1e-10)
        assert_close(reduced.moment @ vectors[:, 0], full.moment @ vectors[:, 0], rtol=1e-10, atol=1e-10)
        assert_close(reduced.moment.diagonal(), full.moment.diagonal(), rtol=1e-10, atol=1e-10)
        assert reduced.output_energy(data.weight) == pytest.approx(full.output_energy(data.weight), rel=1e-10)
        expected = float((data.weight @ full.moment @ data.weight.T).trace())
        assert full.output_energy(data.weight) == pytest.approx(expected, rel=1e-10)


def test_resistance_compares_with_the_fastest_direction():
    data = layer()
    modes = solve(metric(data.moment, 0.1), data.vectors)
    expected = torch.linalg.eigvalsh(data.moment)[-1] * modes.filters.square().sum(0)
    assert_close(bounds.resistance(modes.filters, data.moment), expected, rtol=1e-3, atol=0)


def test_subjects_that_look_like_the_retain_set_are_counted():
    data = layer()
    values = torch.cat([data.forget[:, :2] * 3, data.retain[:, :2]], dim=1)
    columns = view_means(tokens(values), Labels(subjects=["new", "new", "old", "old"]))
    found = metric(data.moment, 0.1)
    singles = {
        subject: float(solve(found, columns.values[:, part]).eigenvalues[0])
        for subject, part in (("new", slice(0, 2)), ("old", slice(2, 4)))
    }
    between = 0.25 * (math.log(singles["new"]) + math.log(singles["old"]))
    assert singles["new"] > singles["old"]
    assert bounds.inseparable(found, columns, between) == [1]
    assert bounds.inseparable(found, columns, -10) == []
    assert bounds.inseparable(found, columns, 10) == [0, 1]


def test_bounds_say_together_what_cannot_be_separated():
    def entry(lost, gates):
        return DistortionBounds.model_construct(subjects=3, inseparable=lost, gates=gates)

    assert bounds.separation_warnings([]) == []
    assert bounds.separation_warnings([entry((0, 1), (0.5,)), entry((2,), ())]) == []
    (some,) = bounds.separation_warnings([entry((0, 1), (0.5,)), entry((1, 2), ())])
    assert some.startswith("1 of 3 forget subjects cannot be told from the retain set in any layer")
    (all_,) = bounds.separation_warnings([entry((0, 1, 2), (1.0,)), entry((0, 1, 2), ())])
    assert "nothing was weakened" in all_
    (asked,) = bounds.separation_warnings([entry((1,), (0.5,))], "forget examples")
    assert asked.startswith("1 of 3 forget examples cannot be told")


# Settings.


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"gamma": 0}, "gamma must be"),
        ({"mu": -1.0}, "mu must be"),
        ({"strength": float("inf")}, "strength must be"),
        ({"rank": 0}, "rank must be"),
        ({"null_every": 1.5}, "null_every must be"),
        ({"min_tokens": 0}, "min_tokens must be"),
        ({"layers_per_pass": 0}, "layers_per_pass"),
        ({"gate": "soft"}, "gate must be one of"),
        ({"matrices": "gate"}, "matrices must be one of"),
        ({"schedule": "backwards"}, "schedule must be one of"),
        ({"shrinkage": "some"}, "shrinkage must lie"),
        ({"shrinkage": 1.5}, "shrinkage must lie"),
        ({"quantile": 0}, "quantile must be a number above 0 and at most 1"),
        ({"smallest_gate": 1.0}, "smallest_gate must be a number of at least 0 and below 1"),
        ({"held_out_ratio": -1}, "held_out_ratio must be"),
        ({"threshold": float("nan")}, "threshold must be"),
        ({"gamma": 3.0}, "gamma would do nothing"),
        ({"gate": "hard", "mu": 3.0}, "mu would do nothing"),
        ({"quantile": 0.5}, "quantile would do nothing"),
        ({"gate": "exponential", "threshold": 0.5, "quantile": 0.5}, "quantile would do nothing"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, reason):
    with pytest.raises(kvw.UserError, match=reason):
        SubspaceSettings(**values)


def test_a_document_stands_beside_questions_that_name_their_subject():
    page = kvw.Example("Ada was", " born in London.", (), "page.md:1, part 1 of 2", plain=True)
    question = kvw.Example("Who?", "Ada", (), "q:1", {"subject": "Ada"})
    assert labels_of([page, question]).subjects == ["page.md:1, part 1 of 2", "ada"]
    assert labels_of([page]) == Labels()
    with pytest.raises(kvw.UserError, match="1 of 2 without, the first q:1"):
        labels_of([replace(question, metadata={}), question])
