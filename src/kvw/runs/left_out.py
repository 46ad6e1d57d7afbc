"""What a retain set must not hold: those who are to be forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kvw.data import Example
from kvw.data.columns import as_option, look_alikes
from kvw.errors import UserError
from kvw.measuring.fingerprint import example_digest
from kvw.plural import agreed, counted
from kvw.runs.earlier import NOBODY, WhoAsked

NAMES_SHOWN = 3


@dataclass(frozen=True)
class LeftOut:
    """Retain examples that were left out.

    Args:
        of: How many examples the retain set held.
        about_forgotten: How many were left out because a subject of the forget set is theirs.
        identical: How many others, because the forget set has the same question, answer and images.
        subjects: The subjects of ``about_forgotten``, in the order in which they appear.
    """

    of: int = 0
    about_forgotten: int = 0
    identical: int = 0
    subjects: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """All that were left out."""
        return self.about_forgotten + self.identical

    def __str__(self) -> str:
        reasons = []
        if self.about_forgotten:
            names = ", ".join(self.subjects[:NAMES_SHOWN])
            if len(self.subjects) > NAMES_SHOWN:
                names += f" and {len(self.subjects) - NAMES_SHOWN} more"
            reasons.append(f"{self.about_forgotten} about subjects of the forget set ({names})")
        if self.identical:
            reasons.append(f"{self.identical} that the forget set holds too (same question, answer and images)")
        are = agreed(self.count, "is", "are")
        return f"{self.count} of {counted(self.of, 'retain example')} {are} left out: {'; '.join(reasons)}."


def without_forgotten(
    retain: Sequence[Example], forget: Sequence[Example], earlier: WhoAsked = NOBODY
) -> tuple[list[Example], LeftOut]:
    """Take out of a retain set what the forget set is about.

    No method can weaken what is as strong in both sets. Whoever asks today was worth keeping in an earlier request,
    so a retain set in use tends to hold them. Subjects are compared by :attr:`kvw.data.Example.subject_key`.

    Args:
        retain: The retain set.
        forget: The forget set.
        earlier: Who was in earlier requests, whose data are gone.

    Returns:
        The examples that stay, in order, and what was left out.

    Raises:
        UserError: None stays, or only one of the two sets names subjects.
    """
    subjects = {example.subject_key for example in forget} - {None}
    forgotten = {example_digest(example) for example in forget}
    kept: list[Example] = []
    about: dict[str, str] = {}
    about_forgotten = 0
    for example in retain:
        if example.subject_key in subjects or example.subject_key in earlier:
            about_forgotten += 1
            about.setdefault(str(example.subject_key), str(example.subject))
        elif example_digest(example) not in forgotten:
            kept.append(example)
    identical = len(retain) - about_forgotten - len(kept)
    left_out = LeftOut(len(retain), about_forgotten, identical, tuple(about.values()))
    if retain and not kept:
        raise UserError("No retain example is left.", found=str(left_out), do="give --retain examples about others")
    _check_named(retain, forget)
    return kept, left_out


def _check_named(retain: Sequence[Example], forget: Sequence[Example]) -> None:
    asked = {
        name: [one for one in examples if not one.plain] for name, examples in (("forget", forget), ("retain", retain))
    }
    named = {name: any(one.subject for one in examples) for name, examples in asked.items()}
    if len(set(named.values())) > 1 and all(asked.values()):
        alone, other = sorted(named, key=lambda name: not named[name])
        like = subject_column(asked[other])
        called = f"if the column '{like}' holds the subjects, add {as_option({'subject': like})}; else " if like else ""
        raise UserError(
            "Only one of the two sets names subjects.",
            found=f"'subject' in the {alone} set and in no example of the {other} set",
            do=f"{called}name the subject of every example in both files, or in neither: without it nobody can be left "
            "out",
        )


def subject_column(examples: Iterable[Example]) -> str:
    """The name of a column that seems to hold the subjects of examples without any; empty if there is none."""
    names = dict.fromkeys(name for example in examples if example.subject is None for name in example.metadata)
    return next(iter(look_alikes("subject", (name for name in names if name != "subject"))), "")
