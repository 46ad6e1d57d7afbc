"""Edits made of edits: composed, scaled, mixed with the original, inverted."""

from __future__ import annotations

from collections.abc import Sequence

from kvw.edits.edit import Edit, EditMetadata
from kvw.errors import UserError
from kvw.models.value_matrix import MatrixKey

ORIGIN = {
    "model_fingerprint": "The edits were made on models with different weights.",
    "model_type": "The edits are for different families of models.",
}
"""What edits must have in common, if both state it, and how to say that they have not."""


def compose(*edits: Edit) -> Edit:
    """One edit that does what several do together, the first one first.

    For gates W diag(g_1) diag(g_2) ... = W diag(g_1 g_2 ...): log-gates add up, in float64 and rounded once. Gates
    commute, so their order changes nothing, not even the last bit; the edits of other kinds act in the given order. For
    directions W T_1 T_2 ...: what folding them into the weights in this order gives.

    Composing differs from folding the edits one after the other in one rounding for each edit but the first.

    Args:
        edits: Two or more of one kind, made on the same model. A value matrix that only some of them touch is fine.

    Returns:
        An edit whose metadata names all of them as parents; compositions among them by their own parents.

    Raises:
        UserError: They do not go together, or their kind cannot be composed.
    """
    if len(edits) < 2:
        raise UserError(
            "Composing needs at least two edits.", found=str(len(edits)), do="name them in the order in which they act"
        )
    check_same_origin(edits)
    check_same_widths(edits)
    kind = type(edits[0])
    alike = [edit for edit in edits if isinstance(edit, kind)]
    if len(alike) < len(edits):
        raise UserError(
            "Edits of different kinds cannot be composed.",
            found=", ".join(edit.kind for edit in edits),
            do="attach or apply them one after the other",
        )
    parents = [
        parent
        for edit in edits
        for parent in (edit.metadata.parents if edit.metadata.method == "compose" else (edit.metadata,))
    ]
    return kind.joined(alike, derived_metadata("compose", parents))


def scale(edit: Edit, strength: float) -> Edit:
    """An edit at a part of its strength: log-gates times ``strength``, g^strength.

    For edits made with ``--schedule one-shot`` this is the edit of gamma times ``strength``.

    Args:
        edit: What to weaken.
        strength: 0 leaves the model as it is, bit for bit; 1 is the edit itself.

    Raises:
        UserError: ``strength`` is not from 0 to 1, or edits of this kind cannot be scaled.
    """
    _check_part("strength", strength)
    return edit.scaled(strength, derived_metadata("scale", [edit.metadata], strength=strength))


def mix(edit: Edit, share: float) -> Edit:
    """Mix the edited weights with the original ones: W'' = (1 - share) W + share W', so g'' = 1 - share + share g.

    This is the model mixing with which UWC (Wang et al., arXiv 2406.09179) brings unlearned models to a common level
    of retention; its u is 1 - ``share``. Strong gates give way much faster than under :func:`scale`.

    Args:
        edit: What to weaken.
        share: 0 is the original model, 1 the edit itself.

    Raises:
        UserError: ``share`` is not from 0 to 1, or edits of this kind cannot be mixed.
    """
    _check_part("share", share)
    return edit.mixed(share, derived_metadata("mix", [edit.metadata], share=share))


def invert(edit: Edit) -> Edit:
    """What undoes an edit: gates 1 / g.

    In float32 both together give back each number that they scale in turn (a coefficient with both attached, a weight
    with both folded in) within 2 units in its last place, as long as the number in between is a normal float32. It is
    two products and two exponentials, each rounded. Weights of a lower precision do not come back: folding an inverse
    into them is refused.

    Raises:
        UserError: A gate is too close to 0, or edits of this kind cannot be inverted.
    """
    return edit.inverted(derived_metadata("invert", [edit.metadata]))


def check_same_origin(edits: Sequence[Edit]) -> None:
    """Refuse edits that were made on different models, as far as they state it.

    Raises:
        UserError: Names the first difference.
    """
    for name, sentence in ORIGIN.items():
        stated = {value: edit.metadata for edit in edits if (value := getattr(edit.metadata, name))}
        if len(stated) > 1:
            found = [f"{value[:12]} ({metadata.base_model or 'no name'})" for value, metadata in stated.items()]
            raise UserError(
                sentence,
                found=", ".join(found),
                do="make them on the same checkpoint, or apply them one after the other",
            )


def check_same_widths(edits: Sequence[Edit]) -> None:
    """Refuse edits that expect value matrices of different widths.

    Raises:
        UserError: Names the first difference.
    """
    widths: dict[MatrixKey, int] = {}
    for edit in edits:
        for key, width in edit.widths.items():
            if widths.setdefault(key, width) != width:
                raise UserError(
                    "The edits expect value matrices of different widths.",
                    found=f"{key}: {widths[key]} and {width} knowledge vectors",
                    do="use edits that were made on the same model",
                )


def derived_metadata(method: str, parents: Sequence[EditMetadata], **settings: float) -> EditMetadata:
    """Metadata of an edit made from others: its origin is theirs."""

    def stated(name: str) -> str:
        return next((value for parent in parents if (value := getattr(parent, name))), "")

    return EditMetadata(
        method=method,
        settings=settings,
        base_model=stated("base_model"),
        model_fingerprint=stated("model_fingerprint"),
        model_type=stated("model_type"),
        value_matrices=stated("value_matrices"),
        parents=tuple(parents),
    )


def _check_part(name: str, value: float) -> None:
    if not 0 <= value <= 1:  # NaN is refused too
        raise UserError(
            f"{name} must be a number from 0 to 1.",
            found=str(value),
            do="give 1 for the edit as it is, and less for a weaker one",
        )
