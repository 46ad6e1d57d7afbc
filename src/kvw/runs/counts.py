"""How much a data set holds: a column that was not read shows here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kvw.data.example import Example
from kvw.plural import counted
from kvw.progress import Reporter


@dataclass(frozen=True)
class Count:
    """What a data set holds.

    Args:
        examples: All of them.
        pictures: Examples with at least one picture.
        subjects: Different subjects, by :attr:`kvw.data.Example.subject_key`; 0 if no example names one.
    """

    examples: int
    pictures: int
    subjects: int

    @classmethod
    def of(cls, examples: Iterable[Example]) -> Count:
        """Count examples."""
        listed = list(examples)
        subjects = {example.subject_key for example in listed} - {None}
        return cls(len(listed), sum(bool(example.images) for example in listed), len(subjects))

    def __str__(self) -> str:
        named = counted(self.subjects, "subject") if self.subjects else "no subjects named"
        return f"{counted(self.examples, 'example')}, {self.pictures:,} with pictures, {named}"


def tell_windows(name: str, before: Count, after: Sequence[Example], reporter: Reporter) -> None:
    """Say into how many parts documents were divided, if any was.

    Args:
        name: What the examples are called.
        before: What was read.
        after: The examples with documents in parts.
        reporter: Told of it.
    """
    if len(after) > before.examples:
        reporter.note(f"{name}: documents are read in parts that overlap, {len(after):,} examples with them.")
