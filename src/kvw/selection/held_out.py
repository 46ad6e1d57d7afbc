"""What is kept out of the solve, so that an edit is judged by what it has not seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from kvw.data import Example
from kvw.retain import NEIGHBOURS

EVERY_SUBJECT, EVERY_NEIGHBOUR, EVERY_VIEW = 5, 3, 3
"""Every fifth retain subject, every third neighbour, and every third view of a forget fact is held out. There are few
neighbours, and what an edit costs others is seen by them first."""


def split_retain(retain: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Hold out every fifth subject (every third neighbour) with all its examples.

    Examples without a subject stand for themselves. Subjects are counted within each source of the retain set, so that
    each source is among what is held out.

    Args:
        retain: The retain set.

    Returns:
        What the solve gets, and what is held out; both in order. Fewer than five subjects of a source (three
        neighbours) hold out none.
    """
    numbers: dict[Hashable, int] = {}
    counts: Counter[Hashable] = Counter()
    kept: tuple[list[Example], list[Example]] = ([], [])
    for row, example in enumerate(retain):
        source = example.metadata.get("source")
        subject = (source, example.subject_key or row)
        if subject not in numbers:
            counts[source] += 1
            numbers[subject] = counts[source]
        every = EVERY_NEIGHBOUR if source in NEIGHBOURS else EVERY_SUBJECT
        kept[numbers[subject] % every == 0].append(example)
    return kept


def split_forget(forget: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Hold out every third view of each fact: another phrasing, or another photo.

    A fact is what the same answer says about the same subject.

    Args:
        forget: The forget set.

    Returns:
        What the solve gets, and what is held out; both in order. Facts with one or two views hold out none, nor does a
        forget set without subjects.
    """
    seen: Counter[Hashable] = Counter()
    kept: tuple[list[Example], list[Example]] = ([], [])
    for example in forget:
        fact = (example.subject_key, example.answer)
        seen[fact] += example.subject_key is not None
        kept[seen[fact] % EVERY_VIEW == 0 and seen[fact] > 0].append(example)
    return kept
