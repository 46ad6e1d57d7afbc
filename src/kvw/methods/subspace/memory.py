"""What subspace weakening will hold in memory, from nothing but shapes."""

from __future__ import annotations

from collections.abc import Sequence

from kvw.methods.plan import MemoryPlan, Waiting
from kvw.models.value_matrix import ValueMatrix

SINGLE, DOUBLE = 4, 8


def memory_plan(
    groups: Sequence[Sequence[ValueMatrix]],
    *,
    folds: int,
    forget: int,
    null: int,
    token_bytes: int,
    sequential: bool,
    retain_rows: int | None = None,
    waiting: Waiting | None = None,
) -> MemoryPlan:
    """Plan the memory of a run.

    Args:
        groups: The value matrices that are measured together, from :func:`kvw.methods.subspace.method.passes`.
        folds: Folds of the retain set: 3 for cross-validation, else 1.
        forget: Answer tokens of the forget set.
        null: Answer tokens of the retain examples that measure the threshold.
        token_bytes: Bytes of a coefficient in the model's dtype.
        sequential: Whether the forget set is measured with the layers before weakened.
        retain_rows: How many rows stand for a second moment; None for full ones.
        waiting: What waits between layers, layer by layer; None for the path of the whole model.
    """

    def moment(width: int) -> int:
        if retain_rows is None:
            return width**2 * SINGLE * folds
        return (retain_rows + 1) * width * token_bytes

    widths = max(sum(matrix.width for matrix in group) for group in groups)
    widest = max(matrix.width for group in groups for matrix in group)
    layers = max(len({matrix.key.layer for matrix in group}) for group in groups)
    order = "sequential, forget set on what is weakened so far" if sequential else "joint, all on the original model"
    kind = "full second moments" if retain_rows is None else f"{retain_rows} rows for each second moment"
    reduced = 2 * (retain_rows or 0) * (widest + (retain_rows or 0)) * DOUBLE
    way = f"up to {layers} layers in each of {len(groups)} passes" if waiting is None else "layer by layer"
    return MemoryPlan(
        path=f"{order}; {kind}, {way}",
        passes=len(groups) if waiting is None else 1,
        largest_moment=moment(widest) // folds,
        moments=max(sum(moment(matrix.width) for matrix in group) for group in groups),
        forget_tokens=forget * widths * token_bytes,
        null_tokens=null * widths * token_bytes,
        states=waiting.states if waiting else 0,
        arguments=waiting.arguments if waiting else 0,
        largest_solve=3 * widest**2 * SINGLE if retain_rows is None else reduced,
        largest_solve_again=2 * widest**2 * DOUBLE if retain_rows is None else reduced,
    )
