"""Subspace weakening of tiny models."""

from __future__ import annotations

import copy
import functools
import math

import pytest
import torch
from tests.batches import joined, logits, padded, text_batch, weights
from tests.families import build_family, family_batch
from tests.fixtures import built

import kvw
from kvw.edits import LowRankEdit
from kvw.measuring.moment_passes import measure_moments, measure_tokens
from kvw.measuring.plans import Examples
from kvw.measuring.sources import Sources
from kvw.methods.subspace.directions import Measurements, _log_gates, find_directions
from kvw.methods.subspace.labels import EverySoManyth, Labels
from kvw.methods.subspace.method import matrices_in, passes, subspace
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.methods.subspace.shrinkage import shrink
from kvw.methods.subspace.solver import Modes
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey


def view(fact, number):
    """One of several examples of a fact: another beginning, the same question and answer."""
    batch = text_batch(1, 9 + fact, 3, seed=fact)
    beginning = text_batch(1, 3, 1, seed=50 * number)["input_ids"]
    return {
        "input_ids": torch.cat([beginning, batch["input_ids"]], dim=1),
        "attention_mask": torch.ones(1, 12 + fact, dtype=torch.int64),
        "labels": torch.nn.functional.pad(batch["labels"], (3, 0), value=-100),
    }


FORGET = [view(0, 1), view(0, 2), view(0, 3), view(1, 1), view(1, 2), view(1, 3)]
RETAIN = [joined([text_batch(2, 12, 4, seed=100 + 5 * part + index) for index in range(5)]) for part in range(4)]
VIEWS = Labels(facts=["a", "a", "a", "b", "b", "b"], subjects=["A", "A", "A", "B", "B", "B"])
THREE_SUBJECTS = Labels(subjects=[f"person {row % 3}" for row in range(40)])


def assert_same(first, second, rtol=1e-3, atol=1e-4):
    """The same operator: directions themselves may differ in sign."""
    assert first.directions.keys() == second.directions.keys()
    for key, found in first.directions.items():
        other = second.directions[key]
        left = found.patterns * found.changes() @ found.filters.T
        right = other.patterns * other.changes() @ other.filters.T
        torch.testing.assert_close(left, right, rtol=rtol, atol=atol * float(left.abs().max()) + 1e-12)


def ranks(edit):
    return {str(key): value.rank for key, value in edit.directions.items()}


def test_the_edit_weakens_the_forget_set_and_attaching_is_folding(model):
    before, original = weights(model, "both"), logits(model, RETAIN[0])
    edit = subspace(model, FORGET, RETAIN)
    assert all(torch.equal(weights(model, "both")[key], value) for key, value in before.items())
    assert torch.equal(logits(model, RETAIN[0]), original)
    assert sum(ranks(edit).values()) > 0
    assert edit.metadata.method == "subspace"
    with edit.attach(model):
        attached = logits(model, RETAIN[0])
    edit.fold(model)
    torch.testing.assert_close(logits(model, RETAIN[0]), attached, rtol=1e-4, atol=1e-4)


def test_forget_coefficients_shrink_more_than_retained_ones(llava):
    """Mean output energy that a value matrix loses at answers, relative to what it had."""
    matrix = find_value_matrices(llava)[1]
    edit = subspace(llava, FORGET, RETAIN, SubspaceSettings(layers=(1, 1), gate="wiener"))
    lost = {}
    for name, batches in (("forget", FORGET), ("retain", RETAIN)):
        values = measure_tokens(llava, batches, [matrix])[matrix.key].coefficients
        before, after = values @ matrix.read().T, values @ edit.changed(matrix, matrix.read()).T
        lost[name] = float((after - before).square().sum() / before.square().sum())
    assert lost["forget"] > 0.3
    assert lost["retain"] < 0.2 * lost["forget"]


@pytest.mark.parametrize("gate", ["exponential", "wiener", "thresholded wiener", "hard"])
def test_equal_forget_and_retain_data_give_no_edit(llava, gate):
    edit = subspace(llava, RETAIN, RETAIN, SubspaceSettings(gate=gate, layers=(0, 3), matrices="both"))
    assert len(ranks(edit)) == 2 * 4 - 1
    assert set(ranks(edit).values()) == {0}
    before = weights(llava, "both")
    edit.fold(llava)
    assert all(torch.equal(weights(llava, "both")[key], value) for key, value in before.items())


@pytest.mark.thorough
@pytest.mark.parametrize("arrangement", ["one batch", "left", "right"])
def test_batches_and_padding_change_nothing(llava, arrangement):
    llava.double()
    expected = subspace(llava, FORGET, RETAIN)
    change = {
        "one batch": lambda batches: [joined(batches)],
        "left": lambda batches: [padded(batch, 3, 0) for batch in batches],
        "right": lambda batches: [padded(batch, 0, 4) for batch in batches],
    }[arrangement]
    assert_same(subspace(llava, change(FORGET), change(RETAIN)), expected, atol=3e-2 if arrangement == "left" else 1e-3)


def test_shuffled_batches_change_nothing_without_labels_of_their_order(llava):
    """The order of examples decides only who measures the threshold."""
    llava.double()
    settings = SubspaceSettings(threshold=0.5)
    expected = subspace(llava, FORGET, RETAIN, settings)
    assert_same(subspace(llava, FORGET[::-1], RETAIN[::-1], settings), expected)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "change",
    [
        {"shrinkage": 0.3},
        {"shrinkage": "cross-validated"},
        {"gate": "wiener"},
        {"gate": "thresholded wiener"},
        {"gate": "hard"},
        {"gamma": 1.0},
        {"threshold": 0.5},
        {"threshold": None},
        {"quantile": 0.05},
        {"smallest_gate": 0.9},
        {"held_out_ratio": 1.5},
        {"strength": 0.5},
        {"matrices": "both"},
        {"matrices": "attention"},
        {"rank": 1},
        {"schedule": "sequential"},
        {"null_every": 7},
        {"sources": Sources(answer=1, prompt=0, image=0, first=0)},
    ],
)
def test_every_setting_changes_the_edit(change):
    measured = {"quantile", "null_every"} & change.keys()
    base = {"layers": (0, 3), "gate": "exponential"} | ({"quantile": 0.1} if measured else {"threshold": 0.3})
    found = weights_after(SubspaceSettings(**base | change))
    assert not torch.allclose(weights_after(SubspaceSettings(**base)), found, rtol=1e-4, atol=1e-6)


@functools.cache
def weights_after(settings):
    """All value matrices of the tiny LLaVA, which stays as it is, under an edit with these settings."""
    llava, _ = built("llava")
    edit = subspace(llava, FORGET, RETAIN, settings, forget_labels=VIEWS, retain_labels=THREE_SUBJECTS)
    return torch.cat(
        [
            (edit.changed(matrix, matrix.read()) if matrix.key in edit.widths else matrix.read()).flatten()
            for matrix in find_value_matrices(llava, "both")
        ]
    )


@pytest.mark.parametrize("part", ["ffn", "attention"])
def test_the_matrices_can_be_chosen_and_joint_edits_put_together(llava, part):
    """Everything is measured on the original model, so that each matrix gets what it gets alone."""
    both = subspace(llava, FORGET, RETAIN, SubspaceSettings(threshold=0.3, matrices="both"))
    found = subspace(llava, FORGET, RETAIN, SubspaceSettings(threshold=0.3, matrices=part))
    assert set(found.directions) == {key for key in both.directions if key.attention == (part == "attention")}
    assert_same(LowRankEdit({key: both.directions[key] for key in found.directions}), found, 1e-5, 1e-5)
    assert sum(ranks(found).values())


def test_the_attention_of_the_first_layer_is_left_alone(llava):
    found = {str(matrix.key) for matrix in matrices_in(llava, SubspaceSettings(matrices="both"))}
    attention = {f"layer.{layer}.attention" for layer in (1, 2, 3)}
    assert found == {f"layer.{layer}" for layer in range(4)} | attention
    with pytest.raises(kvw.UserError, match="nothing to weaken"):
        subspace(llava, FORGET, RETAIN, SubspaceSettings(matrices="attention", layers=(0, 0)))


@pytest.mark.thorough
def test_the_widest_come_first_and_metadata_say_what_was_weakened(llava):
    settings = SubspaceSettings(matrices="both")
    (group,) = passes(matrices_in(llava, settings), settings)
    assert [matrix.width for matrix in group] == sorted((matrix.width for matrix in group), reverse=True)
    cases = (({}, "ffn"), ({"matrices": "both"}, "both"), ({"matrices": "both", "layers": (0, 0)}, "ffn"))
    for change, part in (*cases, ({"matrices": "attention"}, "attention")):
        edit = subspace(llava, FORGET, RETAIN, SubspaceSettings(**change))
        assert edit.metadata.settings["matrices"] == part
        assert [*edit.directions] == sorted(edit.directions, key=lambda key: key.order)


def test_the_price_of_forget_output_sets_the_wiener_gate(llava):
    found = {
        mu: subspace(llava, FORGET, RETAIN, SubspaceSettings(gate="wiener", mu=mu)).directions[MatrixKey(1)]
        for mu in (0.1, 1.0)
    }
    assert float(found[1.0].log_gates.min()) < float(found[0.1].log_gates.min()) < 0


@pytest.mark.thorough
def test_layers_per_pass_saves_memory_and_changes_nothing(llava):
    settings = {"layers": (0, 3), "threshold": 0.5}
    joint = subspace(llava, FORGET, RETAIN, SubspaceSettings(**settings))
    by_two = subspace(llava, FORGET, RETAIN, SubspaceSettings(**settings, layers_per_pass=2))
    assert_same(by_two, joint, rtol=1e-6, atol=1e-6)


@pytest.mark.thorough
def test_sequential_measures_the_forget_set_on_what_is_weakened_so_far(llava):
    settings = {"layers": (0, 3), "threshold": 0.3, "matrices": "ffn"}
    joint = subspace(llava, FORGET, RETAIN, SubspaceSettings(**settings))
    steps = subspace(llava, FORGET, RETAIN, SubspaceSettings(**settings, schedule="sequential"))
    first = {MatrixKey(0): joint.directions[MatrixKey(0)]}
    assert_same(LowRankEdit({MatrixKey(0): steps.directions[MatrixKey(0)]}), LowRankEdit(first), 1e-6, 1e-6)
    weakened = copy.deepcopy(llava)
    LowRankEdit(first).fold(weakened)
    matrices = find_value_matrices(llava)[1:2]
    models = (weakened, llava)
    tokens = [measure_tokens(model, FORGET, find_value_matrices(model)[1:2])[MatrixKey(1)] for model in models]
    retain, null = measure_moments(llava, RETAIN, matrices, examples=Examples(keep=EverySoManyth(Labels(), 3)))
    for edit, own in ((steps, tokens[0]), (joint, tokens[1])):
        measured = Measurements(MatrixKey(1), retain[MatrixKey(1)], own, null[MatrixKey(1)], matrices[0].read())
        expected, *_ = find_directions(measured, SubspaceSettings(**settings), Labels(), Labels())
        found = LowRankEdit({MatrixKey(1): edit.directions[MatrixKey(1)]})
        assert_same(found, LowRankEdit({MatrixKey(1): expected}), 1e-3, 1e-3)


@pytest.mark.thorough
def test_bounds_come_with_every_matrix(llava):
    found = []
    edit = subspace(llava, FORGET, RETAIN, SubspaceSettings(threshold=0.3), forget_labels=VIEWS, on_matrix=found.append)
    assert [entry.key for entry in found] == [str(key) for key in edit.directions]
    for entry, (key, directions) in zip(found, edit.directions.items(), strict=True):
        matrix = edit.value_matrices(llava)[key]
        change = (edit.changed(matrix, matrix.read()) - matrix.read()).double()
        moment = measure_moments(llava, RETAIN, [matrix])[0][key]
        shrunk = shrink(moment.mean, entry.shrinkage).double()
        distortion = float((change @ shrunk @ change.T).trace())
        assert entry.distortion == pytest.approx(distortion, rel=1e-3, abs=1e-9)
        total = float((matrix.read().double() @ shrunk @ matrix.read().double().T).trace())
        assert entry.relative_distortion == pytest.approx(distortion / total, rel=1e-3, abs=1e-9)
        for source, bound in entry.source_bounds.items():
            shares = {name: float(name == source) for name in ("answer", "prompt", "image", "first")}
            alone = measure_moments(llava, RETAIN, [matrix], sources=Sources(**shares))[0][key].mean.double()
            assert float((change @ alone @ change.T).trace()) <= bound * total * 1.001
        assert entry.gates == pytest.approx(tuple(directions.log_gates.exp().tolist()), abs=1e-6)
        assert entry.held_out_eigenvalues is not None


def test_experts_with_too_few_tokens_are_left_alone():
    model = copy.deepcopy(build_family("qwen3_moe"))
    forget, retain = [family_batch(model, 2, 9, 1)], [family_batch(model, 8, 9, 2)]
    settings = {"layers": (0, 1), "gate": "wiener"}
    few = subspace(model, forget, retain, SubspaceSettings(**settings, min_tokens=1))
    many = subspace(model, forget, retain, SubspaceSettings(**settings, min_tokens=5))
    assert set(many.directions) < set(few.directions)
    assert set(many.metadata.left_alone) > set(few.metadata.left_alone)
    batch = forget[0]
    original = logits(model, batch)
    with many.attach(model):
        attached = logits(model, batch)
    many.fold(model)
    torch.testing.assert_close(logits(model, batch), attached, rtol=1e-4, atol=1e-5)
    assert not torch.equal(attached, original)


def test_the_edit_can_be_saved_with_its_settings(llava, tmp_path):
    edit = subspace(llava, FORGET, RETAIN, SubspaceSettings(threshold=0.3, strength=0.5))
    edit.save(tmp_path / "edit.safetensors")
    loaded = kvw.load_edit(tmp_path / "edit.safetensors")
    assert_same(loaded, edit, rtol=0, atol=0)
    assert loaded.strength == 0.5
    assert loaded.metadata.settings["threshold"] == 0.3
    assert loaded.metadata.settings["sources"]["answer"] == 0.5


def test_transposed_matrices_and_quantised_weights():
    """A Conv1D gives the bounds of the Linear that it is; without plain weights there is no distortion."""
    model = copy.deepcopy(build_family("gpt2"))
    forget, retain = [family_batch(model, 2, 9, 1)], [family_batch(model, 8, 9, 2)]
    found = []
    edit = subspace(model, forget, retain, SubspaceSettings(matrices="ffn", layers=(1, 1)), on_matrix=found.append)
    (matrix,) = edit.value_matrices(model).values()
    change = (edit.changed(matrix, matrix.read()) - matrix.read()).T.double()
    moment = shrink(measure_moments(model, retain, [matrix])[0][matrix.key].mean, 0.1).double()
    assert found[0].distortion == pytest.approx(float((change @ moment @ change.T).trace()), rel=1e-3)
    recorded = measure_moments(model, retain, [matrix])[0][matrix.key]
    tokens = measure_tokens(model, forget, [matrix])[matrix.key]
    measured = Measurements(matrix.key, recorded, tokens, None, None)
    _, entry, _ = find_directions(measured, SubspaceSettings(gate="wiener"), Labels(), Labels())
    assert (entry.distortion, entry.relative_distortion, entry.source_bounds) == (None, None, {})
    cross = SubspaceSettings(shrinkage="cross-validated")
    with pytest.raises(kvw.UserError, match="weights that are not quantised"):
        find_directions(measured, cross, Labels(), Labels())


def test_mistakes_are_named(llava):
    with pytest.raises(kvw.UserError, match="can be gone through again") as caught:
        subspace(llava, iter(FORGET), RETAIN, SubspaceSettings(layers=(0, 1), layers_per_pass=1))
    assert "forget batches" in str(caught.value)
    assert ranks(subspace(llava, iter(FORGET), iter(RETAIN)))
    with pytest.raises(kvw.UserError, match="more examples than facts"):
        subspace(llava, FORGET, RETAIN, forget_labels=Labels(facts=["a"]))
    cross = SubspaceSettings(shrinkage="cross-validated")
    with pytest.raises(kvw.UserError, match="goes by subject"):
        subspace(llava, FORGET, RETAIN, cross, forget_labels=VIEWS)
    two = Labels(facts=["a", "a", "a", "b", "b", "c"])
    for settings in (cross, SubspaceSettings(held_out_ratio=1.5)):
        with pytest.raises(kvw.UserError, match="needs three of each") as caught:
            subspace(llava, iter(()), iter(()), settings, retain_labels=THREE_SUBJECTS)
        assert "every example is a fact of its own" in str(caught.value)
        with pytest.raises(kvw.UserError, match="2 of 3 facts with fewer"):
            subspace(llava, iter(()), iter(()), settings, forget_labels=two, retain_labels=THREE_SUBJECTS)


def test_nothing_is_weakened_where_no_held_out_view_was_seen(llava):
    """As in an expert that few tokens of a fact reach."""
    (matrix,) = find_value_matrices(llava)[:1]
    moments, null = measure_moments(llava, RETAIN, [matrix], examples=Examples(keep=lambda row: row % 2 == 0))
    tokens = measure_tokens(llava, FORGET[:2], [matrix])[matrix.key]
    measured = Measurements(matrix.key, moments[matrix.key], tokens, null[matrix.key], matrix.read())
    found, entry, _ = find_directions(measured, SubspaceSettings(held_out_ratio=1.5), VIEWS, Labels())
    assert (found.rank, entry.held_out_eigenvalues) == (0, None)
    assert find_directions(measured, SubspaceSettings(), VIEWS, Labels())[0].rank > 0


def test_held_out_views_decide_by_how_much_and_whether_at_all():
    """The smaller of both ratios makes the gate, and below ``held_out_ratio`` nothing is weakened."""
    found, held_out = torch.tensor([9.0, 9.0, 9.0, 2.0]), torch.tensor([9.0, 2.0, 1.2, 9.0])
    modes = Modes(found, torch.eye(4), torch.eye(4))
    settings = SubspaceSettings(gate="wiener", held_out_ratio=1.5)
    gates = _log_gates(modes, held_out, settings, -1.0)
    assert gates[0] < gates[1] == gates[3] < 0 == gates[2]
    assert not _log_gates(modes, None, settings, -1.0).any()
    plain = _log_gates(modes, held_out, SubspaceSettings(gate="wiener"), -1.0)
    assert plain[0] == plain[1] == plain[2] == gates[0]


@pytest.mark.thorough
def test_the_bounds_go_by_the_threshold_that_the_gate_goes_by(llava):
    def thresholds(**settings):
        found = []
        subspace(llava, FORGET, RETAIN, SubspaceSettings(**settings), forget_labels=VIEWS, on_matrix=found.append)
        for entry in found:
            assert all(0.5 * math.log(value) > entry.threshold for value in entry.eigenvalues)
        return [entry.threshold for entry in found]

    least, measured = thresholds(), thresholds(gate="thresholded wiener")
    assert max(least) < max(measured)
    assert set(thresholds(threshold=0.3)) == {0.3}


def test_retain_answers_may_count_nothing(llava):
    sources = Sources(answer=0, prompt=1, image=0, first=0)
    assert any(ranks(subspace(llava, FORGET, RETAIN, SubspaceSettings(sources=sources))).values())


def test_a_subject_in_both_sets_is_reported(llava):
    found = []
    subspace(
        llava,
        [*FORGET, text_batch(2, 12, 4, seed=100)],
        RETAIN,
        SubspaceSettings(threshold=1.2),
        on_matrix=found.append,
    )
    assert any(entry.subjects - 1 in entry.inseparable for entry in found)
