"""Who and what examples are about, and what follows from it: weights, folds, and who is held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from kvw.data.example import Example
from kvw.errors import UserError


@dataclass(frozen=True)
class Labels:
    """Facts and subjects of examples, in the order in which they are run; batches do not matter.

    Args:
        facts: What each example is a view of: another photo or phrasing of the same question with the same answer.
            None: every example is a fact of its own.
        subjects: Who each example is about. None: every fact is a subject of its own.
        masses: What the subject of each example weighs; None: all 1. Only with subjects.
    """

    facts: Sequence[Hashable] | None = None
    subjects: Sequence[Hashable] | None = None
    masses: Sequence[float] | None = None

    def fact(self, row: int) -> Hashable:
        """What an example is a view of.

        Raises:
            UserError: There are more examples than facts.
        """
        return row if self.facts is None else _at(self.facts, row, "facts")

    def subject(self, row: int) -> Hashable:
        """Who an example is about.

        Raises:
            UserError: There are more examples than subjects.
        """
        return self.fact(row) if self.subjects is None else _at(self.subjects, row, "subjects")

    def weights(self) -> list[float] | None:
        """A weight for every example so that every subject has its mass; None without subjects: all count 1."""
        if self.subjects is None:
            return None
        sizes = Counter(self.subjects)
        masses = self.masses or [1.0] * len(self.subjects)
        return [mass / sizes[subject] for subject, mass in zip(self.subjects, masses, strict=True)]

    def folds(self, count: int = 3) -> list[int]:
        """Deal subjects out to folds in the order in which they appear; examples of one subject stay together.

        Raises:
            UserError: There are fewer subjects than folds.
        """
        numbers: dict[Hashable, int] = {}
        fold_of = [numbers.setdefault(subject, len(numbers)) % count for subject in self.subjects or ()]
        if len(numbers) < count:
            raise UserError(
                "Cross-validation goes by subject.",
                found=f"{len(numbers)} retain subjects",
                do=f"name the subject of every retain example, at least {count}, or give the shrinkage as a number",
            )
        return fold_of


class EveryThirdView:
    """Which examples of a forget set are kept out of F so that it can be checked: every third view of a fact.

    Facts with one or two views keep them all. Ask for the examples in order.
    """

    def __init__(self, labels: Labels) -> None:
        self._labels = labels
        self._seen: Counter[Hashable] = Counter()

    def __call__(self, row: int) -> bool:
        """Whether it is kept out."""
        fact = self._labels.fact(row)
        self._seen[fact] += 1
        return self._seen[fact] % 3 == 0


class EverySoManyth:
    """Which retain examples measure the threshold: of each n-th fact, every second view and at least one.

    The other views stay in the retain moment. Ask for the examples in order.
    """

    def __init__(self, labels: Labels, every: int) -> None:
        self._labels = labels
        self._every = every
        self._numbers: dict[Hashable, int] = {}
        self._seen: Counter[Hashable] = Counter()

    def __call__(self, row: int) -> bool:
        """Whether it takes part."""
        fact = self._labels.fact(row)
        number = self._numbers.setdefault(fact, len(self._numbers))
        self._seen[fact] += 1
        return number % self._every == 0 and self._seen[fact] % 2 == 1


def _at(values: Sequence[Hashable], row: int, name: str) -> Hashable:
    if row >= len(values):
        raise UserError(
            f"There are more examples than {name}.", found=f"{len(values)} {name}", do="give one for every example"
        )
    return values[row]


def labels_of(examples: Sequence[Example]) -> Labels:
    """Who and what examples are about, by the ``subject`` in their metadata.

    With subjects, a fact is what the same answer says about the same subject, by photo and by name apart: a model finds
    it in other places. A part of a document that names none is a subject of its own. Without subjects every example is
    a fact.

    Raises:
        UserError: Some examples name their subject and others do not.
    """
    if all(example.subject_key is None for example in examples):
        return Labels()
    subjects = [one.subject_key or (one.identifier if one.plain else None) for one in examples]
    nameless = [one.identifier for one, subject in zip(examples, subjects, strict=True) if subject is None]
    if nameless:
        raise UserError(
            "Some examples name their subject and others do not.",
            found=f"{len(nameless)} of {len(examples)} without, the first {nameless[0]}",
            do="give every example a 'subject', or none",
        )
    facts = [(subject, one.answer, bool(one.images)) for subject, one in zip(subjects, examples, strict=True)]
    return Labels(facts, subjects)
