"""Edits in force by hooks."""

from __future__ import annotations

from collections.abc import Sequence

from kvw.edits.edit import Attachment
from kvw.errors import UserError
from kvw.models.coefficients import Handle


class Hooks(Attachment):
    """An attachment that consists of hooks alone."""

    def __init__(self, handles: Sequence[Handle]) -> None:
        self._handles = handles

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()


def no_weights(what: str) -> UserError:
    """The error for edits that act by hooks alone, where weights are to be changed.

    Args:
        what: What the edit does, as the beginning of a sentence.
    """
    return UserError(
        f"{what} while the model runs: there are no weights that it could be folded into.",
        do="attach it (edit.attach(model), kvw evaluate --edit, kvw chat --edit), or make an edit with "
        "--method kvw or subspace",
    )
