"""Whether an edit forgets no less than another one, at the price of a few questions for most that forget less."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kvw.edits.edit import Edit
from kvw.selection.scoring import Score, Scorer
from kvw.selection.splits import FORGETTING

FIRST = 4
"""One in this many forget questions is asked first: those that were left most of when an edit forgot less."""


class NoLess:
    """Asks edits the forget questions; those first that are hardest to forget.

    Both bounds are on sums over all questions of what is never negative. So an edit that is above one of them after
    some of the questions forgets less, whatever the others say.

    Args:
        scorer: Scores edits.
        scores: Scores of the edit that forgets enough, by split.
        answered: The most questions that may be answered.
        left: The most that may be left of the probability of the telling tokens, as a mean over all questions.
    """

    def __init__(self, scorer: Scorer, scores: Mapping[str, Score], answered: int, left: float) -> None:
        self._scorer, self._answered, self._left = scorer, answered, left
        self._names = [name for name in FORGETTING if name in scores]
        self._counts = {name: len(scores[name].answered) for name in self._names}
        self._hardest = self._ordered(scores)

    def __call__(self, edit: Edit) -> bool:
        """Whether an edit forgets no less."""
        many = max(1, len(self._hardest) // FIRST)
        first = self._ask(edit, self._hardest[:many])
        if not self._within(first):
            return False
        rest = self._ask(edit, self._hardest[many:])
        if self._within([*first, *rest]):
            return True
        # What this edit leaves most of is asked first of the next one, which is then refused sooner.
        left = dict(zip(self._hardest, [*first, *rest], strict=True))
        self._hardest.sort(key=lambda one: left[one], reverse=True)
        return False

    def _ask(self, edit: Edit, questions: Sequence[tuple[str, int]]) -> list[tuple[bool, float]]:
        """Whether each question is answered, and the probability of its telling tokens."""
        places = {name: [place for other, place in questions if other == name] for name in self._names}
        names = [name for name in self._names if places[name]]
        scores = self._scorer.scores(edit, names, places) if names else {}
        found = {
            (name, place): pair
            for name in names
            for place, *pair in zip(places[name], scores[name].answered, scores[name].probabilities, strict=True)
        }
        return [(bool(found[one][0]), float(found[one][1])) for one in questions]

    def _within(self, asked: Sequence[tuple[bool, float]]) -> bool:
        total = sum(self._counts.values())
        answered, left = sum(one for one, _ in asked), math.fsum(value for _, value in asked) / total
        return answered <= self._answered and left <= self._left

    def _ordered(self, scores: Mapping[str, Score]) -> list[tuple[str, int]]:
        left = {
            (name, place): pair
            for name in self._names
            for place, pair in enumerate(zip(scores[name].answered, scores[name].probabilities, strict=True))
        }
        return sorted(left, key=lambda one: left[one], reverse=True)
