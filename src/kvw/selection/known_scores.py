"""What edits make of questions, remembered: later rounds of a search ask much of what earlier ones have asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from kvw.data import Prepared
from kvw.edits.edit import Edit
from kvw.evaluation.probability import TokenScores
from kvw.evaluation.running import Key

LARGEST = 2**28
"""Bytes of the largest edit whose scores are remembered. It is recognised by a digest of its numbers, and those of
trained weights are as many as the model's."""
ORIGINAL = ""


class KnownScores:
    """Scores by the numbers of the edit and the content of the question."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Key], TokenScores] = {}

    def complete(
        self,
        edit: Edit | None,
        items: Sequence[Prepared],
        keys: Sequence[Key],
        ask: Callable[[Sequence[Prepared]], Sequence[TokenScores]],
    ) -> list[TokenScores]:
        """Ask what is not known yet, and remember it.

        Args:
            edit: The edit that is in force; None for none.
            items: The questions.
            keys: Their content, see :func:`kvw.evaluation.running.content_keys`.
            ask: Scores some of them, in order.

        Returns:
            Scores of all questions, in order. They lack means and deviations.
        """
        name = ORIGINAL if edit is None else _name(edit)
        if name is None:
            return list(ask(items))
        places = [(name, key) for key in keys]
        missing = {place: item for place, item in zip(places, items, strict=True) if place not in self._known}
        if missing:
            found = ask([*missing.values()])
            slim = [replace(one, means=(), deviations=()) for one in found]
            self._known.update(zip(missing, slim, strict=True))
        return [self._known[place] for place in places]


def _name(edit: Edit) -> str | None:
    """A digest of the numbers of an edit; None if it is too large."""
    size = sum(value.numel() * value.element_size() for value in edit.tensors().values())
    return edit.digest() if size <= LARGEST else None
