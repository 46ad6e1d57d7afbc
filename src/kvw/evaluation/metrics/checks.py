"""What every metric refuses: nothing to average, and what is not a number."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized

from kvw.errors import UserError


def numbers(values: Sequence[float], what: str) -> list[float]:
    """The values as a list of floats.

    Args:
        values: Any sequence of numbers; infinite ones may be among them.
        what: What they are, for the message: ``truth ratios of the gold model``.

    Raises:
        UserError: There are none, or one is not a number.
    """
    floats = [float(value) for value in values]
    if not floats:
        raise UserError(f"There are no {what}.", do="give at least one value")
    wrong = [position for position, value in enumerate(floats) if math.isnan(value)]
    if wrong:
        raise UserError(
            f"The {what} hold values that are not numbers.",
            found=f"NaN at {len(wrong)} of {len(floats)} positions, the first at {wrong[0]}",
            do="find out which items failed and count them as failed",
        )
    return floats


def losses(values: Sequence[float], what: str) -> list[float]:
    """Mean negative log likelihoods as a list of floats.

    Args:
        values: In nats; infinite ones may be among them.
        what: What they are, for the message.

    Raises:
        UserError: There are none, or one is not a number or below 0, as a log probability would be.
    """
    found = numbers(values, what)
    if min(found) < 0:
        raise UserError(
            f"The {what} must not be negative.",
            found=f"{min(found)}",
            do="give mean negative log likelihoods per token, not log probabilities",
        )
    return found


def check_lengths(what: str, *parts: Sized) -> None:
    """Refuse sequences that should be parallel and are not.

    Raises:
        UserError: They differ in length.
    """
    lengths = [len(part) for part in parts]
    if len(set(lengths)) > 1:
        raise UserError(
            f"The {what} do not belong together.",
            found=" and ".join(f"{length} values" for length in lengths),
            do="give one value per item to each, in the same order",
        )
