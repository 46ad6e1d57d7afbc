"""Edits made of edits: identities that hold exactly, and how closely the others do."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.batches import logits, text_batch, weights

import kvw
from kvw.edits import Edit, EditMetadata, GateEdit, RoundedGateEdit, calibrate, compose, diff, invert, mix, scale
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey

BATCH = text_batch(2, 10, 3, seed=0)
KEY = MatrixKey(1)
WIDTH = 5
LAST_PLACE = 2.0**-23

quick = settings(max_examples=25, deadline=None)


class Opaque(Edit):
    """A kind that can do nothing but exist."""

    kind = "opaque"
    attach = check_model = describe = does_nothing = tensors = from_tensors = None

    @property
    def widths(self):
        return {KEY: WIDTH}


@pytest.fixture(autouse=True, scope="module")
def _forget_the_opaque_kind():
    yield
    del Edit.kinds["opaque"]


def gate_edit(model, seed, layers=(1, 3), **metadata):
    generator = torch.Generator().manual_seed(seed)
    return GateEdit(
        {
            matrix.key: -3 * torch.rand(matrix.width, generator=generator)
            for matrix in find_value_matrices(model)
            if layers[0] <= matrix.key.layer <= layers[1]
        },
        EditMetadata(method="kvw", forget_digest=f"data {seed}", **metadata),
    )


def small(*logs, **metadata):
    return GateEdit({KEY: torch.tensor(logs)}, EditMetadata(**metadata))


logarithms = st.lists(st.floats(-20, 0, width=32), min_size=WIDTH, max_size=WIDTH)
edits = st.builds(lambda logs: GateEdit({KEY: torch.tensor(logs)}), logarithms)
parts = st.floats(0, 1)


def logs(edit):
    return edit.log_gates[KEY]


@quick
@given(edits, edits, edits)
def test_composing_adds_logarithms_commutes_to_the_last_bit_and_associates_up_to_one_rounding(one, two, three):
    assert torch.equal(logs(compose(one, two)), (logs(one).double() + logs(two).double()).float())
    first = logs(compose(one, two, three))
    for order in ((two, three, one), (three, two, one), (one, three, two)):
        assert torch.equal(logs(compose(*order)), first)
    left, right = compose(compose(one, two), three), compose(one, compose(two, three))
    torch.testing.assert_close(logs(left), logs(right), rtol=4 * LAST_PLACE, atol=0)
    assert left.metadata == right.metadata == compose(one, two, three).metadata


@quick
@given(edits, parts, parts)
def test_scaling_twice_is_scaling_by_the_product_and_mixing_is_linear_in_the_gates(edit, first, second):
    for weaker in (scale, mix):
        assert torch.equal(logs(weaker(edit, 1)), logs(edit))
        assert torch.equal(logs(weaker(edit, 0)).exp(), torch.ones(WIDTH))
    gates = 1 - first + first * logs(edit).double().exp()
    torch.testing.assert_close(logs(mix(edit, first)).double().exp(), gates, rtol=1e-6, atol=0)
    twice, once = scale(scale(edit, first), second), scale(edit, first * second)
    torch.testing.assert_close(logs(twice), logs(once), rtol=4 * LAST_PLACE, atol=1e-30)


def test_an_edit_weakened_by_itself_says_where_it_comes_from_as_before():
    edit = small(-0.5, -2.0, method="kvw", forget_digest="data")
    for found, expected in (
        (edit.scaled(0.5), scale(edit, 0.5)),
        (edit.mixed(0.5), mix(edit, 0.5)),
        (edit.inverted(), invert(edit)),
    ):
        assert torch.equal(logs(found), logs(expected))
        assert found.metadata.model_copy(update={"amplifies": False}) == edit.metadata
    assert edit.inverted().metadata.amplifies


@quick
@given(edits, st.floats(0.01, 0.99))
def test_mixing_gives_way_faster_than_scaling(edit, part):
    assert (logs(mix(edit, part)) >= logs(scale(edit, part)) * (1 + 1e-6) - 1e-9).all()


@quick
@given(edits)
def test_an_edit_and_its_inverse_are_the_identity(edit):
    assert torch.equal(logs(compose(edit, invert(edit))), torch.zeros(WIDTH))
    assert torch.equal(logs(invert(invert(edit))), logs(edit))


def test_edits_of_other_layers_join():
    other = GateEdit({MatrixKey(2): torch.tensor([-1.0]), KEY: torch.tensor([-1.0, 0.0])})
    found = compose(small(-0.5, -2.0), other)
    assert list(found.log_gates) == [KEY, MatrixKey(2)]
    assert logs(found).tolist() == [-1.5, -2.0]
    assert found.log_gates[MatrixKey(2)].tolist() == [-1.0]


def test_a_composition_does_what_both_attached_and_both_folded_do(llava):
    one, two = gate_edit(llava, 1), gate_edit(llava, 2, layers=(0, 2))
    both = compose(one, two)
    with one.attach(llava), two.attach(llava):
        attached = logits(llava, BATCH)
    with both.attach(llava):
        torch.testing.assert_close(logits(llava, BATCH), attached, rtol=1e-5, atol=1e-5)
    before = weights(llava)
    one.fold(llava)
    two.fold(llava)
    for matrix in find_value_matrices(llava):
        if matrix.key in both.widths:
            expected = both.changed(matrix, before[matrix.key])
            torch.testing.assert_close(matrix.read(), expected, rtol=4 * LAST_PLACE, atol=0)


def test_scaling_does_what_it_says_to_a_model(llava):
    edit, original = gate_edit(llava, 1), logits(llava, BATCH)
    with scale(edit, 0).attach(llava):
        assert torch.equal(logits(llava, BATCH), original)
    with edit.attach(llava):
        full = logits(llava, BATCH)
    with scale(edit, 1).attach(llava):
        assert torch.equal(logits(llava, BATCH), full)
    with scale(edit, 0.1).attach(llava):
        assert 0 < (logits(llava, BATCH) - original).abs().mean() < (full - original).abs().mean()


def test_an_inverse_brings_attached_and_folded_edits_back(llava):
    edit, original, before = gate_edit(llava, 1), logits(llava, BATCH), weights(llava)
    with edit.attach(llava), invert(edit).attach(llava):
        torch.testing.assert_close(logits(llava, BATCH), original, rtol=1e-5, atol=1e-5)
    edit.fold(llava)
    assert not torch.allclose(logits(llava, BATCH), original)
    invert(edit).fold(llava)
    for key, weight in weights(llava).items():
        assert (units_apart(weight, before[key]) <= 2).all()


def units_apart(one, other):
    """Units in the last place between float32 numbers of the same sign."""
    return (one.view(torch.int32).long() - other.view(torch.int32).long()).abs()


@pytest.mark.parametrize("depth", [0.01, 1, 20, 80])
def test_weights_come_back_within_two_units_in_the_last_place(depth):
    generator = torch.Generator().manual_seed(0)
    edit = GateEdit({KEY: -depth * torch.rand(200_000, generator=generator)})
    numbers = torch.randn(200_000, generator=generator)
    weakened = numbers * logs(edit).exp()
    normal = weakened.abs() >= torch.finfo(torch.float32).tiny
    assert normal.float().mean() > 0.99
    back = weakened * logs(invert(edit)).exp()
    assert units_apart(back, numbers)[normal].max() in (1, 2)


@pytest.mark.parametrize("logarithm", [-math.inf, -87.5, -100.0])
def test_gates_near_zero_are_not_inverted(logarithm):
    with pytest.raises(kvw.UserError, match="cannot be inverted") as caught:
        invert(small(-1.0, logarithm))
    assert "1 of 2 in layer.1" in str(caught.value)
    assert "original checkpoint" in str(caught.value)
    assert torch.equal(logs(invert(small(-87.0))), torch.tensor([87.0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_inverse_is_not_folded_into_coarse_weights(llava, dtype):
    edit = gate_edit(llava, 1)
    undo = invert(edit)
    llava.to(dtype)
    before = weights(llava)
    for inverse in (undo, scale(undo, 0.5), compose(undo, gate_edit(llava, 2, layers=(0, 0)))):
        with pytest.raises(kvw.UserError, match="rounding is not undone") as caught:
            inverse.fold(llava)
        assert "restore the original checkpoint" in str(caught.value)
    assert all(torch.equal(weights(llava)[key], weight) for key, weight in before.items())
    invert(undo).fold(llava)  # which is the edit again, and amplifies nothing
    assert not torch.equal(weights(llava)[KEY], before[KEY])


def test_an_imported_adapter_that_amplifies_may_be_folded_into_coarse_weights(llava):
    llava.to(torch.bfloat16)
    before = weights(llava)[KEY]
    GateEdit({KEY: torch.ones(before.shape[1])}, EditMetadata(method="adapter", amplifies=True)).fold(llava)
    assert torch.equal(weights(llava)[KEY], (before.float() * torch.ones(1).exp()).bfloat16())


def test_folding_changes_nothing_if_one_matrix_refuses(llava):
    undo, before = invert(gate_edit(llava, 1)), weights(llava)
    find_value_matrices(llava)[3].module.bfloat16()
    with pytest.raises(kvw.UserError, match="rounding is not undone"):
        undo.fold(llava)
    assert all(torch.equal(weights(llava)[MatrixKey(layer)], before[MatrixKey(layer)]) for layer in (1, 2))


def test_steps_of_rounded_edits_follow_each_other(llava):
    llava.to(torch.bfloat16)
    one, two = (
        RoundedGateEdit({key: value.exp().bfloat16().repeat(2, 1) for key, value in edit.log_gates.items()})
        for edit in (gate_edit(llava, 1), gate_edit(llava, 2, layers=(0, 2)))
    )
    both, before = compose(one, two), weights(llava)
    one.fold(llava)
    two.fold(llava)
    assert set(both.widths) == {MatrixKey(layer) for layer in range(4)}
    for matrix in find_value_matrices(llava):
        assert torch.equal(both.changed(matrix, before[matrix.key]), matrix.read())


def test_metadata_name_everything_that_an_edit_was_made_of(tmp_path):
    origin = {"base_model": "tiny", "model_fingerprint": "f" * 64, "model_type": "llava"}
    one, two = small(-1.0, method="kvw", forget_digest="a", **origin), small(-2.0, method="kvw", forget_digest="b")
    edit = compose(scale(one, 0.5), compose(two, one))
    assert {name: getattr(edit.metadata, name) for name in origin} == origin
    assert [parent.method for parent in edit.metadata.parents] == ["scale", "kvw", "kvw"]
    assert edit.metadata.parents[0].settings == {"strength": 0.5}
    assert edit.metadata.parents[0].parents == (one.metadata,)
    assert [parent.forget_digest for parent in edit.metadata.parents] == ["", "b", "a"]
    edit.save(tmp_path / "edit.safetensors")
    loaded = kvw.load_edit(tmp_path / "edit.safetensors")
    assert loaded.metadata == edit.metadata
    assert torch.equal(logs(loaded), logs(edit))


def test_only_marked_edits_may_amplify(tmp_path):
    invert(small(-1.0)).save(tmp_path / "inverse.safetensors")
    loaded = kvw.load_edit(tmp_path / "inverse.safetensors")
    assert loaded.metadata.amplifies
    assert loaded.metadata.undoes
    assert logs(loaded).tolist() == [1.0]
    assert [layer.strengthened for layer in loaded.describe()] == [1]
    assert not invert(loaded).metadata.amplifies
    assert not compose(small(-1.0), loaded).metadata.amplifies
    for value in (math.nan, math.inf):
        broken = GateEdit({KEY: torch.tensor([value])}, EditMetadata(amplifies=True))
        with pytest.raises(kvw.UserError, match="finite"):
            broken.save(tmp_path / "broken.safetensors")


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([], ["at least two", "1"]),
        ([small(-1.0, model_fingerprint="b" * 64, base_model="other")], ["different weights", "aaaa", "other"]),
        ([small(-1.0), small(-1.0, model_type="qwen2_vl")], ["different families", "llava", "qwen2_vl"]),
        ([small(-1.0, -1.0)], ["different widths", "layer.1: 1 and 2"]),
        ([RoundedGateEdit({KEY: torch.ones(2, 1)})], ["different kinds", "gates, rounded gates"]),
    ],
    ids=["too few", "weights", "family", "width", "kind"],
)
def test_edits_that_do_not_go_together(others, words):
    with pytest.raises(kvw.UserError) as caught:
        compose(small(-1.0, model_fingerprint="a" * 64, model_type="llava"), *others)
    for word in words:
        assert word in str(caught.value)


def test_origins_that_are_not_stated_do_not_differ():
    assert compose(small(-1.0, model_fingerprint="a"), small(-1.0)).metadata.model_fingerprint == "a"


@pytest.mark.parametrize("part", [-0.1, 1.1, math.nan, math.inf])
def test_strengths_outside_zero_and_one(part):
    with pytest.raises(kvw.UserError, match="strength must be a number from 0 to 1"):
        scale(small(-1.0), part)
    with pytest.raises(kvw.UserError, match="share must be a number from 0 to 1"):
        mix(small(-1.0), part)


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (lambda edit: scale(edit, 0.5), "cannot be scaled"),
        (lambda edit: mix(edit, 0.5), "cannot be mixed"),
        (invert, "cannot be inverted"),
    ],
)
def test_kinds_say_what_they_cannot_do(operation, words):
    for edit in (RoundedGateEdit({KEY: torch.ones(2, WIDTH)}), Opaque()):
        with pytest.raises(kvw.UserError, match=f"'{edit.kind}' {words}"):
            operation(edit)
    for both in (compose, diff):
        with pytest.raises(kvw.UserError, match="'opaque' cannot be comp"):
            both(Opaque(), Opaque())


def test_two_edits_side_by_side():
    first = GateEdit({KEY: torch.tensor([-1.0, -2.0, 0.0, 0.0]), MatrixKey(2): torch.tensor([0.0])})
    second = GateEdit({KEY: torch.tensor([-1.0, 0.0, -2.0, 0.0])})
    found = diff(first, second)
    one, two = found.layers
    assert (one.key, one.vectors, one.weakened) == ("layer.1", 4, (2, 2))
    assert one.overlap == pytest.approx(1 / 3)
    assert one.cosine == pytest.approx(1 / 5)
    assert one.largest_difference == pytest.approx(1 - math.exp(-2))
    assert (two.weakened, two.overlap, two.cosine, two.largest_difference) == ((0, 0), None, None, 0)
    assert (found.overall.vectors, found.overall.overlap) == (5, one.overlap)
    assert found.overall.cosine == pytest.approx(1 / 5)


@quick
@given(edits, st.floats(0.1, 1))
def test_an_edit_points_where_its_weaker_self_does(edit, strength):
    weaker = scale(edit, strength)
    assume(torch.equal(logs(weaker) < 0, logs(edit) < 0))  # none of its numbers has vanished below float32
    found = diff(edit, weaker).overall
    if found.cosine is not None:
        assert found.cosine == pytest.approx(1)
        assert found.overlap == 1


def test_parity_edits_can_be_compared_with_exact_ones():
    rounded = RoundedGateEdit({KEY: torch.full((2, 1), 0.5)})
    assert diff(small(2 * math.log(0.5)), rounded).overall.largest_difference == pytest.approx(0, abs=1e-7)
    with pytest.raises(kvw.UserError, match="different widths"):
        diff(small(-1.0, -1.0), rounded)


def keeps(edit):
    """A made-up score: the mean gate."""
    return float(logs(edit).exp().mean())


@pytest.mark.parametrize(("path", "strength"), [(scale, math.log(2) / 2), (mix, 0.5 / (1 - math.exp(-2)))])
def test_calibrating_finds_the_strength_that_keeps_the_floor(path, strength):
    found = calibrate(small(-2.0), keeps, 0.5, path=path, tolerance=2**-12)
    assert strength - 2**-12 <= found.strength <= strength
    assert found.score == keeps(found.edit) >= 0.5
    assert torch.equal(logs(found.edit), logs(path(small(-2.0), found.strength)))
    coarse = calibrate(small(-2.0), keeps, 0.5, path=path, tolerance=0.5)
    assert strength - 0.5 <= coarse.strength <= strength


def test_calibrating_asks_no_more_than_it_must():
    asked = []

    def score(edit):
        asked.append(edit)
        return keeps(edit)

    assert calibrate(small(-2.0), score, 0.1).strength == 1
    assert len(asked) == 1


def test_calibrations_that_cannot_be():
    with pytest.raises(kvw.UserError, match="original model does not reach the floor"):
        calibrate(small(-2.0), keeps, 1.5)
    with pytest.raises(kvw.UserError, match="not a number"):
        calibrate(small(-2.0), lambda _: math.nan, 0.5)
    with pytest.raises(kvw.UserError, match="tolerance"):
        calibrate(small(-2.0), keeps, 0.5, tolerance=0)
