"""Low-rank edits on live models and in files."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from safetensors.torch import load_file
from tests.batches import logits, text_batch, weights
from tests.edit_files import write
from tests.families import build_family, family_batch

import kvw
from kvw.edits import Directions, EditMetadata, GateEdit, LowRankEdit, surviving_shares
from kvw.edits.low_rank import REMOVED
from kvw.edits.surviving import surviving_share
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey

BATCH = text_batch(2, 10, 3, seed=0)


def random_directions(width, rank, seed, size=1.0):
    """Biorthogonal patterns and filters and gates between 1 and exp(-3)."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.randn(width, rank, generator=generator, dtype=torch.float64)
    filters = basis + torch.randn(width, rank, generator=generator, dtype=torch.float64)  # oblique, not singular
    patterns = basis @ torch.linalg.inv(filters.T @ basis)
    return Directions(patterns, filters, -3 * size * torch.rand(rank, generator=generator))


def low_rank_edit(model, layers=(1, 3), rank=3, size=1.0):
    return LowRankEdit(
        {
            matrix.key: random_directions(matrix.width, rank, seed, size)
            for seed, matrix in enumerate(find_value_matrices(model, "both"))
            if layers[0] <= matrix.key.layer <= layers[1]
        },
        metadata=EditMetadata(method="subspace", base_model="tiny"),
    )


def operator(directions, strength=1.0):
    """T in float64."""
    change = torch.expm1(strength * directions.log_gates.double())
    return torch.eye(directions.width) + directions.patterns.double() * change @ directions.filters.double().T


def test_attach_and_fold_agree_and_detach_restores(model):
    edit = low_rank_edit(model)
    before, original = weights(model, "both"), logits(model, BATCH)
    with edit.attach(model):
        attached = logits(model, BATCH)
    assert torch.equal(logits(model, BATCH), original)
    assert all(torch.equal(weights(model, "both")[key], value) for key, value in before.items())
    edit.fold(model)
    torch.testing.assert_close(logits(model, BATCH), attached, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(attached, original, atol=1e-2)


def test_fold_multiplies_with_the_operator_and_leaves_other_layers(llava):
    edit = low_rank_edit(llava, layers=(1, 2))
    before = weights(llava, "both")
    edit.fold(llava)
    for key, value in weights(llava, "both").items():
        if key in edit.directions:
            expected = (before[key].double() @ operator(edit.directions[key])).float()
            torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(value, before[key])


@pytest.mark.parametrize("family", ["gpt2", "qwen3_moe", "gpt_oss", "llama4"])
def test_transposed_matrices_and_experts(family):
    model = copy.deepcopy(build_family(family))
    edit = low_rank_edit(model)
    batch = family_batch(model, 3, 9, 0)
    original = logits(model, batch)
    before = {matrix.key: (matrix, matrix.read().clone()) for matrix in find_value_matrices(model, "both")}
    with edit.attach(model):
        attached = logits(model, batch)
    assert torch.equal(logits(model, batch), original)
    edit.fold(model)
    torch.testing.assert_close(logits(model, batch), attached, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(attached, original, atol=1e-3)
    for key, directions in edit.directions.items():
        matrix, weight = before[key]
        transform = operator(directions)
        expected = transform.T @ weight.double() if matrix.vectors_first else weight.double() @ transform
        torch.testing.assert_close(matrix.read().double(), expected, rtol=1e-4, atol=1e-5)


def test_an_edit_of_one_expert_leaves_the_others():
    model = copy.deepcopy(build_family("qwen3_moe"))
    matrix = next(matrix for matrix in find_value_matrices(model) if matrix.key.expert == 1)
    edit = LowRankEdit({matrix.key: random_directions(matrix.width, 2, 0)})
    batch = family_batch(model, 3, 9, 0)
    others = find_value_matrices(model)
    before = {other.key: other.read().clone() for other in others}
    original = logits(model, batch)
    with edit.attach(model):
        attached = logits(model, batch)
    edit.fold(model)
    torch.testing.assert_close(logits(model, batch), attached, rtol=1e-4, atol=1e-5)
    assert (attached - original).abs().max() > 1e-4
    changed = [other.key for other in others if not torch.equal(other.read(), before[other.key])]
    assert changed == [matrix.key]


@pytest.mark.thorough
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_offloaded_weights_are_edited_too(llava, place, tmp_path):
    expected, original = copy.deepcopy(llava), logits(llava, BATCH)
    edit = low_rank_edit(llava)
    edit.fold(expected)
    if place == "disk":
        offloaded = disk_offload(llava, tmp_path, execution_device=torch.device("cpu"))
    else:
        offloaded = cpu_offload(llava, execution_device=torch.device("cpu"))
    with edit.attach(offloaded):
        torch.testing.assert_close(logits(offloaded, BATCH), logits(expected, BATCH), rtol=1e-4, atol=1e-4)
    assert torch.equal(logits(offloaded, BATCH), original)
    edit.fold(offloaded)
    torch.testing.assert_close(logits(offloaded, BATCH), logits(expected, BATCH))


def test_fold_rounds_once_in_half_precision(llava):
    llava.to(torch.bfloat16)
    edit = low_rank_edit(llava)
    before = weights(llava, "both")
    edit.fold(llava)
    for key, directions in edit.directions.items():
        exact = before[key].double() @ operator(directions)
        error = (weights(llava, "both")[key].double() - exact).abs()
        assert bool((error <= exact.abs() * 2**-8 + 1e-6).all())


def test_attaching_in_half_precision_is_as_close_as_one_rounding(llava):
    edit = low_rank_edit(llava, size=0.1)
    exact = copy.deepcopy(llava)
    edit.fold(exact)
    reference = logits(exact, BATCH)
    llava.to(torch.bfloat16)
    plain_error = (logits(llava, BATCH).float() - logits(copy.deepcopy(llava).float(), BATCH)).abs().max()
    with edit.attach(llava):
        error = (logits(llava, BATCH).float() - reference).abs().max()
    assert error < 6 * plain_error


def test_a_file_brings_back_the_edit(llava, tmp_path):
    edit = low_rank_edit(llava).scaled(0.5)
    edit.save(tmp_path / "edit.safetensors")
    loaded = kvw.load_edit(tmp_path / "edit.safetensors")
    assert isinstance(loaded, LowRankEdit)
    assert (loaded.metadata, loaded.strength) == (edit.metadata, 0.5)
    assert loaded.tensors().keys() == edit.tensors().keys()
    for name, value in edit.tensors().items():
        assert torch.equal(loaded.tensors()[name], value)
    assert set(load_file(tmp_path / "edit.safetensors")) == {"strength"} | {
        f"{key}.{part}" for key in edit.directions for part in ("patterns", "filters", "log_gates")
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layer.1.log_gates": torch.tensor([0.0, 0.5, 0.0])}, "above 0"),
        ({"layer.1.log_gates": torch.tensor([0.0, float("-inf"), 0.0])}, "not finite"),
        ({"layer.1.log_gates": torch.zeros(2)}, "do not fit"),
        ({"layer.1.patterns": torch.full((80, 3), float("nan"))}, "not finite"),
        ({"strength": torch.tensor(float("inf"), dtype=torch.float64)}, "not finite"),
        ({"layer.4.filters": torch.zeros(80, 3)}, "layer.4.filters"),
    ],
)
def test_files_that_make_no_sense_are_refused(llava, tmp_path, change, reason):
    edit = low_rank_edit(llava)
    write(tmp_path / "edit.safetensors", edit.kind, edit.tensors() | change)
    with pytest.raises(kvw.UserError, match="not an edit file") as caught:
        kvw.load_edit(tmp_path / "edit.safetensors")
    assert reason in str(caught.value)


def test_strengths_add_up(llava):
    """T(a) T(b) = T(a + b), and strength 0 is no edit."""
    edit = low_rank_edit(llava)
    first, second = copy.deepcopy(llava), copy.deepcopy(llava)
    edit.scaled(0.3).fold(first)
    edit.scaled(0.7).fold(first)
    edit.fold(second)
    for key, value in weights(second, "both").items():
        torch.testing.assert_close(weights(first, "both")[key], value, rtol=1e-4, atol=1e-5)
    untouched = copy.deepcopy(llava)
    edit.scaled(0).fold(untouched)
    assert all(torch.equal(weights(untouched, "both")[key], value) for key, value in weights(llava, "both").items())
    assert edit.scaled(0.5).scaled(0.5).strength == 0.25


def test_the_inverse_undoes_the_edit(llava):
    edit = low_rank_edit(llava)
    before = weights(llava, "both")
    edit.fold(llava)
    assert not torch.allclose(weights(llava, "both")[MatrixKey(1)], before[MatrixKey(1)], atol=1e-2)
    edit.inverted().fold(llava)
    for key, value in before.items():
        torch.testing.assert_close(weights(llava, "both")[key], value, rtol=1e-4, atol=1e-5)


def test_what_was_taken_out_altogether_cannot_be_brought_back():
    found = random_directions(20, 2, 0)
    hard = Directions(found.patterns, found.filters, torch.tensor([-0.5, REMOVED]))
    assert hard.changes()[1] == -1
    assert hard.changes(0.01)[1] == -1
    assert hard.changes(0)[1] == 0
    with pytest.raises(kvw.UserError, match="nothing can bring them back") as caught:
        LowRankEdit({MatrixKey(2): hard}).inverted()
    assert "1 gates of 0, the first in layer.2" in str(caught.value)
    assert LowRankEdit({MatrixKey(2): hard}).scaled(2).strength == 2


def test_a_gate_near_one_is_not_lost(llava):
    """g - 1 of a tiny log-gate keeps its digits."""
    found = random_directions(20, 1, 0)
    tiny = Directions(found.patterns, found.filters, torch.tensor([-1e-9]))
    torch.testing.assert_close(tiny.changes(), torch.tensor([-1e-9]), rtol=1e-6, atol=0)


def test_a_summary_speaks_of_directions():
    found = random_directions(20, 3, 0)
    gates = Directions(found.patterns, found.filters, torch.tensor([0.0, -0.5, -1.0]))
    (layer,) = LowRankEdit({MatrixKey(2): gates}, strength=2.0).describe()
    assert (layer.key, layer.vectors, layer.rank, layer.weakened, layer.matrices) == ("layer.2", 20, 3, 2, 1)
    assert layer.smallest_gate == pytest.approx(0.13533528)
    assert layer.total_exponent == pytest.approx(3.0)
    experts = LowRankEdit({MatrixKey(2, 0): gates, MatrixKey(2, 3): gates}).describe()
    assert [(entry.key, entry.matrices, entry.vectors, entry.rank) for entry in experts] == [
        ("layer.2.experts", 2, 40, 6)
    ]
    empty = Directions(torch.zeros(20, 0), torch.zeros(20, 0), torch.zeros(0))
    (layer,) = LowRankEdit({MatrixKey(1): empty}).describe()
    assert (layer.rank, layer.weakened, layer.mean_gate) == (0, 0, 1.0)


def test_the_edit_of_another_model_is_refused(qwen2_vl, llava):
    with pytest.raises(kvw.UserError, match="does not fit"):
        low_rank_edit(qwen2_vl).fold(llava)


def test_shares_that_survive_folding(llava):
    """Nothing is lost in float32; in bfloat16 a small edit mostly is."""
    strong, weak = low_rank_edit(llava), low_rank_edit(llava, rank=1).scaled(1e-5)
    assert surviving_shares(strong, llava) == pytest.approx(dict.fromkeys(strong.directions, 1.0), abs=1e-4)
    llava.to(torch.bfloat16)
    before = weights(llava, "both")
    kept, lost = surviving_shares(strong, llava), surviving_shares(weak, llava)
    assert all(torch.equal(weights(llava, "both")[key], value) for key, value in before.items())
    for key in kept:
        assert kept[key] == pytest.approx(1.0, abs=0.05)
        assert lost[key] < 0.9


def test_shares_are_projections_on_the_change():
    weight, change = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 3.0]).double()
    assert surviving_share(weight, weight + torch.tensor([1.0, 0.0]), change) == pytest.approx(0.1)
    assert surviving_share(weight, weight, torch.zeros(2).double()) == 1.0


def test_gates_have_surviving_shares_too(llava):
    llava.to(torch.bfloat16)
    below = GateEdit({MatrixKey(1): torch.full((80,), -0.001)})
    assert surviving_shares(below, llava)[MatrixKey(1)] < 0.7


def test_the_algebra_of_edits_knows_directions(llava):
    edit, batch = low_rank_edit(llava), text_batch(2, 10, 3, seed=0)
    with edit.scaled(0.5).attach(llava):
        expected = logits(llava, batch)
    with kvw.scale(edit, 0.5).attach(llava):
        assert torch.equal(logits(llava, batch), expected)
    original = logits(llava, batch)
    with edit.attach(llava), kvw.invert(edit).attach(llava):
        torch.testing.assert_close(logits(llava, batch), original, rtol=1e-3, atol=1e-4)
    assert kvw.scale(edit, 0.5).metadata.method == "scale"
    with pytest.raises(kvw.UserError, match="inverse of an edit cannot be folded"):
        kvw.invert(edit).fold(llava.bfloat16())


@pytest.mark.parametrize("family", ["llava", "gpt2"])
def test_folding_a_few_rows_at_a_time_is_folding(family, monkeypatch):
    model = copy.deepcopy(build_family(family))
    edit = low_rank_edit(model)
    matrices = list(edit.value_matrices(model).values())
    whole = [edit.changed(matrix, matrix.read()) for matrix in matrices]
    monkeypatch.setattr("kvw.edits.low_rank.ENTRIES_AT_A_TIME", 100)
    for matrix, expected in zip(matrices, whole, strict=True):
        found = edit.changed(matrix, matrix.read())
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        assert found.is_contiguous()


def test_directions_over_several_processes_are_refused(llava, monkeypatch):
    monkeypatch.setattr("kvw.edits.low_rank.sharded_weight", lambda module: module.weight)
    with pytest.raises(kvw.UserError, match="in several processes"):
        low_rank_edit(llava).attach(llava)


def test_composed_edits_do_what_folding_them_one_after_the_other_does(llava):
    first, second = low_rank_edit(llava, layers=(1, 2), rank=2).scaled(0.5), low_rank_edit(llava, layers=(2, 3))
    both = kvw.compose(first, second)
    with both.attach(llava):
        attached = logits(llava, BATCH)
    expected = copy.deepcopy(llava)
    first.fold(expected)
    second.fold(expected)
    torch.testing.assert_close(attached, logits(expected, BATCH), rtol=1e-4, atol=1e-4)
    other = kvw.compose(second, first)
    with other.attach(llava):
        assert not torch.allclose(logits(llava, BATCH), attached, atol=1e-3)
    shared = next(key for key in first.directions if key in second.directions)
    wanted = operator(first.directions[shared], 0.5) @ operator(second.directions[shared])
    torch.testing.assert_close(operator(both.directions[shared]), wanted, rtol=1e-4, atol=1e-5)


def test_what_is_taken_out_stays_out_of_a_composed_edit(llava):
    width = find_value_matrices(llava)[0].width
    gone, weakened = random_directions(width, 1, 0), random_directions(width, 2, 1)
    gone = Directions(gone.patterns, gone.filters, torch.full((1,), REMOVED))
    both = LowRankEdit.joined(
        [LowRankEdit({MatrixKey(0): gone}), LowRankEdit({MatrixKey(0): weakened})], EditMetadata()
    )
    # Whatever the second edit does to coefficients, the first one's filter finds nothing in what is left.
    left = gone.filters.double().T @ operator(both.directions[MatrixKey(0)])
    assert left.abs().max() <= 1e-5 * gone.filters.abs().max()


def test_a_composed_edit_has_no_inverse_and_an_inverse_is_not_composed(llava):
    edit = low_rank_edit(llava)
    with pytest.raises(kvw.UserError, match="composed of several, and no power of it undoes that"):
        kvw.invert(kvw.compose(edit, edit))
    with pytest.raises(kvw.UserError, match="An inverse of directions cannot be composed"):
        kvw.compose(edit, kvw.invert(edit))
