"""One edit that a search tries, with what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kvw.edits.edit import Edit
from kvw.selection.paths import Path
from kvw.selection.scoring import Score, Share
from kvw.selection.splits import ALL_HELD_OUT, FORGETTING, TEXT

LEAST = 0.9
"""Share of a single source of what must stay. An edit that leaves less is a wreck."""


@dataclass
class Candidate:
    """One edit and what is known of it so far.

    Args:
        edit: The edit; None once it is not needed any more.
        dose: Its dose on the path; None if it was made by hand.
        path: The path that it lies on; None if it was made by hand.
        scores: Scores by split; splits that were not asked are missing.
        kept: What is left of what must stay, by split.
        chosen_first: Questions of what must stay whose answers are the model's first choice, as a share of those that
            were.
    """

    edit: Edit | None
    dose: float | None
    path: Path | None = None
    scores: dict[str, Score] = field(default_factory=dict)
    kept: dict[str, Share] = field(default_factory=dict)
    chosen_first: float = 1.0

    def answered(self, splits: Sequence[str] = FORGETTING) -> int:
        """Forget questions that are still answered, in any words, held-out views among them."""
        return sum(sum(self.scores[name].answered) for name in splits if name in self.scores)

    def left(self) -> float:
        """Mean probability of the telling tokens over all forget questions."""
        values = [value for name in FORGETTING if name in self.scores for value in self.scores[name].probabilities]
        return sum(values) / len(values)

    def keeps(self, keep: float) -> bool:
        """Whether what must stay is kept, as far as it was asked: text and all held-out questions together, by
        ``keep``.

        A single source has few questions, so its share says less. It is enough if it is no wreck.
        """
        return not self.lost(keep)

    def below(self, keep: float) -> dict[str, Share]:
        """The sources that keep less than all sources together must keep."""
        return {
            name: share for name, share in self.kept.items() if name not in (TEXT, ALL_HELD_OUT) and share.value < keep
        }

    def most(self) -> float:
        """The largest ``keep`` with which this edit keeps what must stay, as far as it was asked; 1 if nothing was."""
        whole = (TEXT, ALL_HELD_OUT)
        counted = [one.value for name, one in self.kept.items() if name in whole or one.value < LEAST]
        return min(counted, default=1.0)

    def lost(self, keep: float) -> dict[str, Share]:
        """The parts that keep less than they must."""
        return {
            name: share
            for name, share in self.kept.items()
            if share.value < (keep if name in (TEXT, ALL_HELD_OUT) else min(keep, LEAST))
        }
