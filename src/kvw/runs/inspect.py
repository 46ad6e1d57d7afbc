"""``kvw inspect``: where a model keeps its knowledge vectors."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from kvw.models.candidates import Candidate, find_candidates
from kvw.models.families import default_layers, find_value_matrices
from kvw.models.loading import Checkpoint, skeleton


class Structure(BaseModel):
    """What was found in a model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    model_type: str
    decoder_type: str
    layers: int
    default_layers: tuple[int, int]
    width: int
    hidden: int
    first: str
    last: str
    left_alone: list[str]
    """Other linear maps that narrow their input (vision tower, attention, projector): never touched."""


def inspect(checkpoint: Checkpoint) -> Structure:
    """Find the value matrices from the configuration alone.

    Raises:
        UserError: The family is not known; the message lists what looks like value projections.
    """
    model = skeleton(checkpoint)
    matrices = find_value_matrices(model)
    names = {matrix.name for matrix in matrices}
    return Structure(
        model=str(checkpoint),
        model_type=model.config.model_type,
        decoder_type=model.config.get_text_config().model_type,
        layers=len(matrices),
        default_layers=default_layers(len(matrices)),
        width=matrices[0].width,
        hidden=matrices[0].hidden,
        first=matrices[0].name,
        last=matrices[-1].name,
        left_alone=[str(group) for group in find_candidates(model) if not _covers(group, names)],
    )


def _covers(group: Candidate, names: set[str]) -> bool:
    return group.template.replace("*", "0", 1) in names
