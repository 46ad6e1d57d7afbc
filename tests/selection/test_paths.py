"""The edits that one solve offers."""

import itertools

import pytest
import torch

from kvw.edits.edit import Edit
from kvw.edits.gates import GateEdit
from kvw.edits.low_rank import REMOVED, Directions, LowRankEdit
from kvw.models.value_matrix import MatrixKey
from kvw.selection.paths import DirectionsPath, SharePath, StrengthPath, united


def low_rank(*log_gates: list[float]) -> LowRankEdit:
    generator = torch.Generator().manual_seed(0)
    directions = {}
    for layer, gates in enumerate(log_gates):
        shape = (8, len(gates))
        patterns, filters = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
        directions[MatrixKey(layer)] = Directions(patterns, filters, torch.tensor(gates))
    return LowRankEdit(directions)


def test_directions_come_strongest_first_over_all_layers() -> None:
    path = DirectionsPath(low_rank([-3.0, -0.5], [-2.0, 0.0]), smallest_gate=0.0)
    assert path.doses == (1.0, 2.0, 3.0)
    assert [{str(key): value.rank for key, value in path.edit(dose).directions.items()} for dose in path.doses] == [
        {"layer.0": 1},
        {"layer.0": 1, "layer.1": 1},
        {"layer.0": 2, "layer.1": 1},
    ]


def test_the_last_dose_is_all_that_was_found() -> None:
    found = low_rank([-3.0, -0.5], [-2.0, -0.1])
    last = DirectionsPath(found, 0.0).edit(4.0)
    for key, value in found.directions.items():
        assert torch.equal(last.directions[key].patterns, value.patterns)
        assert torch.equal(last.directions[key].log_gates, value.log_gates)


def test_gates_below_the_smallest_become_0() -> None:
    gates = DirectionsPath(low_rank([-5.0, -0.5]), smallest_gate=0.02).edit(2.0).directions[MatrixKey(0)].log_gates
    assert gates.tolist() == [REMOVED, -0.5]


def test_equally_strong_directions_come_together() -> None:
    assert DirectionsPath(low_rank([-1.0, -1.0, -1.0]), 0.0).edit(1.0).directions[MatrixKey(0)].rank == 3


def test_a_dose_counts_all_directions_of_its_edit() -> None:
    path = DirectionsPath(low_rank([-3.0, -1.0, -1.0], [-1.0, -0.5, 0.0, -0.5]), 0.0)
    assert path.doses == (1.0, 4.0, 6.0)
    assert [sum(value.rank for value in path.edit(dose).directions.values()) for dose in path.doses] == [1, 4, 6]


def test_an_edit_without_directions_offers_nothing() -> None:
    assert DirectionsPath(low_rank([]), 0.0).doses == ()


def test_doses_grow_and_repeat_nothing() -> None:
    doses = DirectionsPath(low_rank([-float(number) for number in range(1, 200)]), 0.0).doses
    assert list(doses) == sorted(set(doses))
    assert (doses[0], doses[-1]) == (1.0, 199.0)
    assert all(after <= 1.5 * before + 1 for before, after in itertools.pairwise(doses))


def test_strengths_multiply_log_gates_and_1_is_the_edit_itself() -> None:
    edit = GateEdit({MatrixKey(0): torch.tensor([-0.5, 0.0])})
    path = StrengthPath(edit)
    assert 1.0 in path.doses
    assert path.edit(4.0).tensors()["layer.0.log_gates"].tolist() == [-2.0, 0.0]


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_share_mixes_weights(share: float) -> None:
    edit = low_rank([REMOVED, -0.5])
    mixed = SharePath(edit).edit(share)
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    value = edit.directions[MatrixKey(0)]

    def folded(found: LowRankEdit) -> torch.Tensor:
        changes = found.directions[MatrixKey(0)].changes(found.strength)
        return weight + (weight @ value.patterns * changes) @ value.filters.T

    assert isinstance(mixed, LowRankEdit)
    expected = (1 - share) * weight + share * folded(edit)
    torch.testing.assert_close(folded(mixed), expected, rtol=1e-5, atol=1e-5)


def test_what_is_not_needed_is_left_out_of_the_strongest() -> None:
    path = DirectionsPath(low_rank([-3.0, -0.5, -2.5], [-2.0, 0.0], [-1.0]), smallest_gate=0.06)
    wanted = {("layer.0", -2.5), ("layer.1", -2.0)}

    def has(edit: Edit) -> set[tuple[str, float]]:
        assert isinstance(edit, LowRankEdit)
        return {(str(key), float(gate)) for key, value in edit.directions.items() for gate in value.log_gates}

    thin = path.needed(4, lambda edit: {one for one in wanted if one[1] > -2.8} <= has(edit), tries=20)
    assert (thin.doses, thin.where) == ((1.0, 2.0), "needed of 4")
    assert has(thin.edit(2)) == wanted
    assert has(thin.edit(1)) == {("layer.0", -2.5)}
    assert {str(key): value.rank for key, value in thin.edit(2).directions.items()} == {"layer.0": 1, "layer.1": 1}
    assert torch.equal(
        thin.edit(1).directions[MatrixKey(0)].patterns, path.edit(2).directions[MatrixKey(0)].patterns[:, 1:]
    )


def test_small_gates_are_rounded_after_thinning_too() -> None:
    path = DirectionsPath(low_rank([-3.0, -2.5], [-5.0]), smallest_gate=0.02, layers=(0, 1))
    thin = path.needed(3, lambda edit: True, tries=20)
    assert thin.where == "layers 0:1, needed of 3"
    assert [value.log_gates.tolist() for value in thin.edit(1).directions.values()] == [[REMOVED]]


def test_after_thinning_gates_that_are_rounded_still_say_which_is_stronger() -> None:
    thin = DirectionsPath(low_rank([-6.0, -5.0, -4.0]), smallest_gate=0.02).needed(3, lambda edit: False, tries=20)
    assert thin.doses == (1.0, 2.0, 3.0)
    assert thin.edit(1).directions[MatrixKey(0)].log_gates.tolist() == [REMOVED]


def test_an_edit_that_is_in_force_is_in_every_edit_of_a_path() -> None:
    found, base = low_rank([-3.0, -0.5], [-2.0, 0.0]), low_rank([-1.0])
    directions = DirectionsPath(found, 0.0, base=base)
    asked: list[int] = []

    def enough(edit: Edit) -> bool:
        assert isinstance(edit, LowRankEdit)
        asked.append(edit.directions[MatrixKey(0)].rank)
        return edit.directions[MatrixKey(0)].rank > 1

    thin = directions.needed(3.0, enough, 10)
    for path, dose, ranks in ((directions, 1.0, (2, 0)), (thin, 1.0, (2, 0)), (SharePath(found, base), 0.5, (3, 2))):
        edit = path.edit(dose)
        assert isinstance(edit, LowRankEdit)
        own = edit.directions[MatrixKey(0)]
        assert (own.rank, edit.widths.keys() >= {MatrixKey(1)}) == (ranks[0], bool(ranks[1]))
        assert torch.equal(own.patterns[:, :1], base.directions[MatrixKey(0)].patterns)
        assert own.log_gates[0] == -1.0
    assert min(asked) >= 1


def biorthogonal(seed: int, gates: list[float]) -> LowRankEdit:
    """Directions that are orthonormal in the metric of S = diag(1, ..., 8)."""
    vectors = torch.randn((8, len(gates)), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    white, _ = torch.linalg.qr(vectors)
    roots = torch.arange(1, 9, dtype=torch.float64).sqrt()[:, None]
    return LowRankEdit({MatrixKey(0): Directions(roots * white, white / roots, torch.tensor(gates))})


def test_directions_of_several_edits_are_taken_out_together() -> None:
    edits = [biorthogonal(1, [-9.0, -8.0]), biorthogonal(2, [-9.5, -0.5])]
    paths = [DirectionsPath(edit, 0.02) for edit in edits]
    path = united([(paths[0], 2.0), (paths[1], 1.0)])  # of the second edit only the stronger direction
    assert (path.doses, path.is_thin, path.where) == ((1.0, 2.0, 3.0), True, "each subject by itself")
    found = path.edit(3.0).directions[MatrixKey(0)]
    assert found.log_gates.tolist() == [REMOVED] * 3
    assert not found.replaces  # V^T U = I, although the directions of the two overlap
    read = found.filters.double().T
    for edit, many in zip(edits, (2, 1), strict=True):
        patterns = edit.directions[MatrixKey(0)].patterns[:, :many].double()
        # Nothing is left of what either takes out: (I - U V^T) u = 0
        assert (patterns - found.patterns.double() @ (read @ patterns)).abs().max() < 1e-5


def test_an_edit_that_is_in_force_is_under_several_edits_together() -> None:
    base = low_rank([-1.0])
    paths = [DirectionsPath(biorthogonal(seed, [-9.0]), 0.0, base=base) for seed in (1, 2)]
    path = united([(one, 1.0) for one in paths])
    assert path.base is base
    edit = path.edit(2.0)
    assert isinstance(edit, LowRankEdit)
    assert edit.directions[MatrixKey(0)].rank == 3


def test_a_direction_that_two_edits_share_is_taken_out_once() -> None:
    edits = [biorthogonal(1, [-9.0, -8.0]), biorthogonal(2, [-7.0, -6.0])]
    first = edits[0].directions[MatrixKey(0)]
    again = LowRankEdit({MatrixKey(0): Directions(first.patterns[:, :1], first.filters[:, :1], torch.tensor([-5.0]))})
    path = united([(DirectionsPath(edit, 0.0), edit.directions[MatrixKey(0)].rank) for edit in (*edits, again)])
    assert path.doses[-1] == 4.0
    assert path.edit(4.0).directions[MatrixKey(0)].log_gates.tolist() == [-9.0, -8.0, -7.0, -6.0]


def test_weakened_directions_take_a_share_of_what_the_whole_takes() -> None:
    path = DirectionsPath(low_rank([-5.0, -0.5], [REMOVED]), smallest_gate=0.02)
    weaker = path.weakened(0.25)
    assert (weaker.doses[-1], weaker.where) == (3.0, "at 25%")
    whole, part = path.edit(3.0), weaker.edit(3.0)
    for key, value in whole.directions.items():
        assert torch.equal(part.directions[key].filters, value.filters)
        torch.testing.assert_close(part.directions[key].changes(), 0.25 * value.changes())
