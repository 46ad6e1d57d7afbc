"""What must hold of second moments and tokens once everything has been seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from kvw.errors import UserError
from kvw.measuring.engine import not_finite
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.processes import current

if TYPE_CHECKING:
    from kvw.measuring.moments import Moment, Tokens


def refuse_missed(matrices: Sequence[ValueMatrix], reached: Iterable[MatrixKey]) -> None:
    """Raise a UserError where a value matrix outside the experts saw no token in any process."""
    everywhere = set().union(*current().all_gather(set(reached)))
    missed = [matrix.name for matrix in matrices if matrix.key.expert is None and matrix.key not in everywhere]
    if missed:
        raise UserError(
            "Some value matrices saw no token, so their coefficients are unknown.",
            found=", ".join(missed[:5]) + (", ..." if len(missed) > 5 else ""),
            do="check that labels hold the answer's token ids, or leave these layers out",
        )


def refuse_not_finite(
    matrices: Sequence[ValueMatrix], moments: Mapping[MatrixKey, Moment], tokens: Mapping[MatrixKey, Tokens]
) -> None:
    """Raise a UserError where coefficients are not finite."""
    for matrix in matrices:
        finite = True
        if matrix.key in tokens:
            finite &= bool(tokens[matrix.key].coefficients.isfinite().all())
        if matrix.key in moments:
            finite &= all(bool(fold.diagonal().isfinite().all()) for fold in moments[matrix.key].sums)
        if not finite:
            raise not_finite(matrix.name)
