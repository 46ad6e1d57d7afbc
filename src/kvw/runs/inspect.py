"""``kvw inspect``: where a model keeps its knowledge vectors."""

from __future__ import annotations

from collections.abc import Sequence

from kvw.models.candidates import Candidate, find_candidates
from kvw.models.detection import confirm_value_matrices
from kvw.models.finding import UnknownFamily, default_layers, find_value_matrices
from kvw.models.loading import Checkpoint, skeleton
from kvw.models.value_matrix import ValueMatrix
from kvw.strict import Strict


class MatrixGroup(Strict):
    """Value matrices at the same place in several layers."""

    template: str
    """Name of the modules with ``*`` for the layer's number."""
    layers: list[int]
    experts: int
    """How many experts each of these layers has; 0 for what every token passes."""
    width: int
    """Knowledge vectors of each matrix."""
    hidden: int


class Structure(Strict):
    """What was found in a model."""

    model: str
    model_type: str
    decoder_type: str
    layers: int
    default_layers: tuple[int, int]
    value_matrices: list[MatrixGroup]
    attention: list[MatrixGroup]
    """Output projections of attention, where kvw knows them: weakened by the methods that take ``matrices``."""
    to_confirm: str
    """The template that the structure of a model of an unknown family suggests; empty if the family is known."""
    left_alone: list[str]
    """Other linear maps that narrow their input (vision tower, projector, what attention reads with): never touched."""


def inspect(checkpoint: Checkpoint) -> Structure:
    """Find the value matrices from nothing but the configuration.

    Raises:
        UserError: The family is not known and the structure does not tell; the message lists what could be meant.
    """
    model, to_confirm = skeleton(checkpoint), ""
    try:
        matrices = find_value_matrices(model)
    except UnknownFamily as unknown:
        if len(unknown.detected) != 1:
            raise
        to_confirm = unknown.detected[0].template
        confirm_value_matrices(model, to_confirm)
        matrices = find_value_matrices(model)
    attention = [matrix for matrix in find_value_matrices(model, "both") if matrix.key.attention]
    names = {matrix.name for matrix in (*matrices, *attention)}
    layers = matrices[-1].key.layer + 1
    return Structure(
        model=str(checkpoint),
        model_type=model.config.model_type,
        decoder_type=model.config.get_text_config().model_type,
        layers=layers,
        default_layers=default_layers(layers),
        value_matrices=_groups(matrices),
        attention=_groups(attention),
        to_confirm=to_confirm,
        left_alone=[str(group) for group in find_candidates(model) if not _covers(group, names)],
    )


def _groups(matrices: Sequence[ValueMatrix]) -> list[MatrixGroup]:
    groups: dict[tuple[str, int, int], list[ValueMatrix]] = {}
    for matrix in matrices:
        template = matrix.name.replace(f".{matrix.key.layer}.", ".*.", 1)
        groups.setdefault((template, matrix.width, matrix.hidden), []).append(matrix)
    return [
        MatrixGroup(
            template=template,
            layers=sorted({matrix.key.layer for matrix in group}),
            experts=len({matrix.key.expert for matrix in group} - {None}),
            width=width,
            hidden=hidden,
        )
        for (template, width, hidden), group in groups.items()
    ]


def _covers(group: Candidate, names: set[str]) -> bool:
    return any(group.template.replace("*", str(layer), 1) in names for layer in range(group.count + 1))
