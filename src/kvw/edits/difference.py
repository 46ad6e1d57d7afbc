"""Two edits side by side."""

from __future__ import annotations

import torch
from torch import Tensor

from kvw.edits.algebra import check_same_widths
from kvw.edits.edit import Edit
from kvw.strict import Strict


class LayerDifference(Strict):
    """The gates that two edits give to the same knowledge vectors."""

    key: str
    """A value matrix, or ``all``."""
    vectors: int
    weakened: tuple[int, int]
    """Knowledge vectors with a gate below 1, in the first and in the second edit."""
    overlap: float | None
    """Share of the vectors weakened by either edit that both weaken (Jaccard); None if there are none."""
    cosine: float | None
    """Cosine of the log-gates: 1 if one edit is the other at another strength; None if an edit does nothing here."""
    largest_difference: float
    """The largest absolute difference of two gates, in the float32 in which they act."""


class EditDifference(Strict):
    """The comparison, layer by layer and over all of them."""

    layers: list[LayerDifference]
    overall: LayerDifference


def diff(first: Edit, second: Edit) -> EditDifference:
    """Compare the gates of two edits; a value matrix that one of them leaves alone has gates of 1 there.

    Raises:
        UserError: Their value matrices have different widths, or one of them does more than scale knowledge vectors.
    """
    check_same_widths([first, second])
    one, other = first.log_factors(), second.log_factors()
    widths = sorted({**first.widths, **second.widths}.items(), key=lambda entry: entry[0].order)
    ones = [one.get(key, torch.zeros(width)) for key, width in widths]
    others = [other.get(key, torch.zeros(width)) for key, width in widths]
    return EditDifference(
        layers=[_difference(str(key), *pair) for (key, _), *pair in zip(widths, ones, others, strict=True)],
        overall=_difference("all", torch.cat(ones), torch.cat(others)),
    )


def _difference(key: str, one: Tensor, other: Tensor) -> LayerDifference:
    """Compare log-gates: (width,), float32."""
    weakened = one < 0, other < 0
    either = int((weakened[0] | weakened[1]).sum())
    both = int((weakened[0] & weakened[1]).sum())
    gap = float((one.exp() - other.exp()).abs().max())
    one, other = one.double(), other.double()
    lengths = float(one.norm()), float(other.norm())
    return LayerDifference(
        key=key,
        vectors=one.numel(),
        weakened=(int(weakened[0].sum()), int(weakened[1].sum())),
        overlap=both / either if either else None,
        cosine=float((one / lengths[0]) @ (other / lengths[1])) if all(lengths) else None,
        largest_difference=gap,
    )
