"""Earlier requests whose data are gone, forgotten again with a further one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from kvw.errors import UserError
from kvw.measuring.fingerprint import subject_digest
from kvw.measuring.moments import Tokens
from kvw.methods.earlier import Earlier
from kvw.methods.subspace.directions import Measurements
from kvw.methods.subspace.labels import Labels
from kvw.methods.subspace.solution import Measured
from kvw.models.value_matrix import ValueMatrix


def with_earlier(forget: Labels, earlier: Sequence[Earlier]) -> Labels:
    """Labels of the forget set, and behind them those of earlier requests.

    Raises:
        UserError: The forget set names no subjects, or one of them is in an earlier request.
    """
    if not earlier:
        return forget
    if forget.subjects is None or forget.facts is None:
        raise UserError(
            "Beside earlier requests the forget set must name its subjects.", do="add a column 'subject' to --forget"
        )
    known = {one for request in earlier for one in _again(forget.subjects, request)}
    if known:
        raise UserError(
            "Somebody to be forgotten is in an earlier request, too.",
            found=", ".join(sorted(known)[:3]),
            do="leave them out: they are forgotten with that request",
        )
    facts = [*forget.facts, *(fact for request in earlier for fact in request.facts)]
    return Labels(facts, [*forget.subjects, *(one for request in earlier for one in request.subjects)])


def _again(subjects: Sequence[object], request: Earlier) -> Iterator[str]:
    kept = set(request.subjects)
    return (name for name in dict.fromkeys(map(str, subjects)) if subject_digest(name, request.salt) in kept)


def joined_by(measured: Measured, forget: Labels, earlier: Sequence[Earlier]) -> Measured:
    """What value matrices saw, the tokens of earlier requests behind those of the forget set.

    Args:
        measured: Of the forget set alone.
        forget: Its labels.
        earlier: The requests, in the order of their labels.
    """
    if not earlier:
        return measured
    first = len(forget.facts or ())

    def both(matrix: ValueMatrix) -> Measurements | None:
        seen, parts, row = measured(matrix), [], first
        if seen is None:
            return None
        for request in earlier:
            kept = request.tokens[matrix.key]
            parts.append(replace(kept, rows=kept.rows + row))
            row += len(request.facts)
        return replace(seen, forget=Tokens.joined([seen.forget, *parts]))

    return both
