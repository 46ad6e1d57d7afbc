"""What is kept out of the solve, so that an edit is judged by what it has not seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from kvw.data import Example
from kvw.retain import NEIGHBOURS

EVERY_SUBJECT, EVERY_VIEW = 5, 3
"""Every fifth retain subject and every third view of a forget fact is held out."""
EVERY_OF = {"text": 3, **dict.fromkeys(NEIGHBOURS, 3)}
"""Sources of which every third is. There are few neighbours, and what an edit costs others is seen by them first. The
bound for plain text is the closest, so it takes many sentences to see whether it is kept."""


def split_retain(retain: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Hold out every fifth subject (every third neighbour and plain text) with all its examples.

    Examples without a subject stand for themselves. Subjects are counted within each source of the retain set, so that
    each source is among what is held out.

    Args:
        retain: The retain set.

    Returns:
        What the solve gets, and what is held out; both in order. Fewer than five subjects of a source (three
        neighbours) hold out none.
    """
    numbers: dict[Hashable, int] = {}
    counts: Counter[str] = Counter()
    kept: tuple[list[Example], list[Example]] = ([], [])
    for row, example in enumerate(retain):
        source = str(example.metadata.get("source", ""))
        subject = (source, example.subject_key or row)
        if subject not in numbers:
            counts[source] += 1
            numbers[subject] = counts[source]
        kept[numbers[subject] % EVERY_OF.get(source, EVERY_SUBJECT) == 0].append(example)
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
