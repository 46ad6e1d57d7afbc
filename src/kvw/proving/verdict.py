"""Whether a request was met: everything forgotten, everything else kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from kvw.proving.record import Item, ProvingRecord

KEPT = {"retain": 0.98, "unused": 0.97}
"""Share that must be left, of the answers that were given and of the probability of the reference answers."""
LARGEST_PERPLEXITY = 1.02
"""Of plain text, as a multiple of the original's."""
LOST, BROKEN = r"retain set is lost", r"perplexity of ordinary sentences went|are empty or end in a loop"
DAMAGE = r"loses what must stay"
ANNOUNCED = {
    "forget": re.compile(r"answered almost as before|still answered"),
    "retain": re.compile(f"{LOST}|{DAMAGE}"),
    "unused": re.compile(f"{LOST}|{BROKEN}|{DAMAGE}"),
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

    Met are: ``forget``, if no question of it brings the fact; ``retain`` and ``unused``, if :data:`KEPT` is left;
    ``plain text``, if its perplexity grew by no more than :data:`LARGEST_PERPLEXITY`. A refused request has forgotten
    nothing and lost nothing, and its message tells of it.
    """
    if record.state == "refused":
        return Verdict(("forget",), ("forget",))
    missed = ["forget"] if given_after(record.splits["forget"]) > 0 else []
    for split, least in KEPT.items():
        items = record.splits[split]
        if min(kept_answers(items), kept_probability(items)) < least:
            missed.append(split)
    if perplexity_ratio(record) > LARGEST_PERPLEXITY:
        missed.append("plain text")
    told = [name for name in missed if any(ANNOUNCED[name].search(warning) for warning in record.warnings)]
    return Verdict(tuple(missed), tuple(told))


def given_after(items: Sequence[Item]) -> float:
    """Share of the questions whose answer holds the fact, by the unlearned model."""
    return fmean(item.after.given for item in items if item.after)


def kept_answers(items: Sequence[Item]) -> float:
    """Of the questions that the original answers with the fact, the share that the unlearned model does; 1 of none."""
    kept = [item.after.given for item in items if item.after and item.before.given]
    return fmean(kept) if kept else 1.0


def kept_probability(items: Sequence[Item]) -> float:
    """Mean probability of the reference answers after over before."""
    after = fmean(item.after.probability for item in items if item.after)
    return after / fmean(item.before.probability for item in items)


def perplexity_ratio(record: ProvingRecord) -> float:
    """Perplexity of plain text after over before; 1 if nothing was written."""
    found = record.perplexity
    return 1.0 if found.after is None else found.after / found.before
