"""The part of an edit that acts in some layers."""

import pytest
import torch

from kvw.edits.edit import EditMetadata
from kvw.edits.gates import GateEdit
from kvw.edits.low_rank import Directions, LowRankEdit
from kvw.edits.parts import within_layers
from kvw.edits.steering import SteeringEdit
from kvw.errors import UserError
from kvw.models.value_matrix import MatrixKey

KEYS = [MatrixKey(0), MatrixKey(1), MatrixKey(1, attention=True), MatrixKey(2)]
METADATA = EditMetadata(method="kvw", forget_count=3)


def directions(seed: int) -> Directions:
    generator = torch.Generator().manual_seed(seed)
    return Directions(
        torch.randn(6, 2, generator=generator), torch.randn(6, 2, generator=generator), torch.tensor([-1.0, -2.0])
    )


def test_gates_of_other_layers_are_gone():
    edit = GateEdit({key: torch.tensor([-1.0, 0.0, -place]) for place, key in enumerate(KEYS)}, METADATA)
    part = within_layers(edit, [1, 2])
    assert isinstance(part, GateEdit)
    assert set(part.log_gates) == set(KEYS[1:])
    assert all(torch.equal(part.log_gates[key], edit.log_gates[key]) for key in part.log_gates)
    assert part.metadata == METADATA


def test_directions_keep_their_strength():
    edit = LowRankEdit({key: directions(place) for place, key in enumerate(KEYS)}, 0.5, METADATA)
    part = within_layers(edit, {0, 7})
    assert isinstance(part, LowRankEdit)
    assert set(part.directions) == {MatrixKey(0)}
    assert part.strength == 0.5
    assert part.directions[MatrixKey(0)] == edit.directions[MatrixKey(0)]


def test_an_edit_that_does_nothing_there_is_refused():
    edit = GateEdit({MatrixKey(0): torch.tensor([-1.0]), MatrixKey(1): torch.tensor([0.0])})
    for layers in ([1], [5], []):
        with pytest.raises(UserError, match="does nothing in these layers"):
            within_layers(edit, layers)


def test_other_kinds_are_refused():
    with pytest.raises(UserError, match="'steering' cannot be cut by layers"):
        within_layers(SteeringEdit.__new__(SteeringEdit), [0])
