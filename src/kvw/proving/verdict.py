"""Whether a request was met: everything forgotten, everything else kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from kvw.proving.record import Item, ProvingRecord

Score = Literal["given", "exact", "chosen", "probability", "rouge"]
BROUGHT: tuple[Score, ...] = ("given", "exact", "chosen")
"""Ways in which a question brings the fact."""
ABOVE_GOLD = 0.02
"""By how much the share of forget questions that bring the fact may be above the gold model's, in each way."""
When = Literal["before", "after", "gold"]
KEPT = {"retain": 0.98, "unused": 0.97}
"""Share that must be left, of the facts that are chosen first and of the probability of the reference answers."""
LARGEST_PERPLEXITY = 1.02
"""Of plain text, as a multiple of the original's."""
LOST, BROKEN = r"retain set is lost", r"perplexity of ordinary sentences went|are empty or end in a loop"
DAMAGE, COST = r"loses what must stay", r"Others pay"
ANNOUNCED = {
    "forget": re.compile(r"answered almost as before|still answered|but in other words"),
    "retain": re.compile(f"{LOST}|{DAMAGE}|{COST}"),
    "unused": re.compile(f"{LOST}|{BROKEN}|{DAMAGE}|{COST}"),
    "plain text": re.compile(f"{BROKEN}|{DAMAGE}"),
}
"""How the warnings of a run say that something is missed. It cannot see the subjects that no file names: if it tells of
a loss of the others or of language, it has told of theirs."""


@dataclass(frozen=True)
class Verdict:
    """What of a request was met.

    Args:
        missed: Of ``forget``, ``retain``, ``unused`` and ``plain text``.
        announced: Those of them that the run itself told of.
    """

    missed: tuple[str, ...]
    announced: tuple[str, ...]


def judge(record: ProvingRecord) -> Verdict:
    """Judge one request.

    Met are: ``forget``, if no question of it brings the fact, neither in the greedy answer nor teacher-forced, or where
    there is a gold model, no more than :data:`ABOVE_GOLD` above its share of them;
    ``retain`` and ``unused``, if :data:`KEPT` is left, where those that the run has named itself are not unused;
    ``plain text``, if its perplexity grew by no more than :data:`LARGEST_PERPLEXITY`. A run that wrote nothing has
    forgotten nothing and lost nothing, and its message tells of it.
    """
    if record.state != "written":
        return Verdict(("forget",), ("forget",))
    missed = [] if _forgotten(record.splits["forget"]) else ["forget"]
    for split, least in KEPT.items():
        items = [item for item in record.splits[split] if split != "unused" or not item.named]
        if min(kept(items, "chosen"), kept(items, "probability")) < least:
            missed.append(split)
    if perplexity_ratio(record) > LARGEST_PERPLEXITY:
        missed.append("plain text")
    told = [name for name in missed if any(ANNOUNCED[name].search(warning) for warning in record.warnings)]
    return Verdict(tuple(missed), tuple(told))


def _forgotten(items: Sequence[Item]) -> bool:
    allowed = ABOVE_GOLD if any(item.gold for item in items) else 0.0
    return all(mean(items, way, "after") <= mean(items, way, "gold") + allowed for way in BROUGHT)


def distance_to_gold(items: Sequence[Item], score: Score, when: When) -> float | None:
    """Mean absolute difference of a score to the gold model's over the questions of a split; None without gold."""
    pairs = [(getattr(item, when), item.gold) for item in items if getattr(item, when) and item.gold]
    return fmean(abs(getattr(one, score) - getattr(gold, score)) for one, gold in pairs) if pairs else None


def mean(items: Sequence[Item], score: Score, when: When) -> float:
    """Mean of a score over the questions of a split that have it; 0 if none has."""
    answers = [answer for item in items if (answer := getattr(item, when)) is not None]
    values = [value for answer in answers if (value := getattr(answer, score)) is not None]
    return fmean(values) if values else 0.0


def kept(items: Sequence[Item], score: Score) -> float:
    """Mean of a score after over before; 1 if there was nothing to lose.

    Answers that were gained count, too: close to a tie any change turns as many answers to the right as to the wrong,
    and a share of those that were right before would fall without any loss.
    """
    before = mean(items, score, "before")
    return mean(items, score, "after") / before if before else 1.0


def perplexity_ratio(record: ProvingRecord) -> float:
    """Perplexity of plain text after over before; 1 if nothing was written."""
    found = record.perplexity
    return 1.0 if found.after is None else found.after / found.before
