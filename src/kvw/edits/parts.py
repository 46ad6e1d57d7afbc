"""The part of an edit that acts in some layers."""

from __future__ import annotations

from collections.abc import Collection

from kvw.edits.edit import Edit
from kvw.edits.gates import GateEdit
from kvw.edits.low_rank import LowRankEdit
from kvw.errors import UserError


def within_layers(edit: Edit, layers: Collection[int]) -> Edit:
    """What an edit does in some layers, and nothing elsewhere.

    Args:
        edit: One that weakens knowledge vectors or directions.
        layers: Decoder layers, 0-based.

    Raises:
        UserError: The edit is of another kind, or does nothing in these layers.
    """
    inside = {key for key in edit.widths if key.layer in layers}
    part: Edit
    if isinstance(edit, GateEdit):
        part = GateEdit({key: edit.log_gates[key] for key in inside}, edit.metadata)
    elif isinstance(edit, LowRankEdit):
        part = LowRankEdit({key: edit.directions[key] for key in inside}, edit.strength, edit.metadata)
    else:
        raise UserError(
            f"Edits of kind '{edit.kind}' cannot be cut by layers.",
            do="give the layers to the method (--layers), or use a method that weakens vectors or directions",
        )
    if part.does_nothing:
        raise UserError(
            "The edit does nothing in these layers.",
            found=", ".join(map(str, sorted(layers)[:8])) or "no layer",
            do="name layers that it changes: kvw edit show lists them",
        )
    return part
