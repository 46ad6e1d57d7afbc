"""Edits that act by hooks."""

from __future__ import annotations

from collections.abc import Sequence

from kvw.edits.edit import Attachment
from kvw.models.coefficients import Handle


class Hooks(Attachment):
    """An attachment that consists of hooks."""

    def __init__(self, handles: Sequence[Handle]) -> None:
        self._handles = handles

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
