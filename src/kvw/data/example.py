"""One example of a forget, retain or evaluation set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kvw.folding import collapsed

ImageSource = Path | bytes
"""An image: a file, or the encoded bytes of one (as Parquet files of the Hugging Face hub carry them)."""


@dataclass(frozen=True)
class Turn:
    """A message of a conversation before the question.

    Args:
        role: ``system``, ``user`` or ``assistant``.
        text: What it says.
        images: How many pictures it shows, before its text.
    """

    role: str
    text: str
    images: int = 0


@dataclass(frozen=True)
class Example:
    """A question about images (or none) and the answer whose knowledge is to be forgotten, kept or scored.

    A part of a document is an example, too: its beginning as the question and the rest as the answer.

    Args:
        question: What is asked.
        answer: The reference answer; never empty.
        images: The images in the order in which the prompt shows them, those of earlier turns first.
        identifier: How messages name this example, for example ``forget.jsonl:12``.
        metadata: Whatever else the data carries (split, task); methods read no more of it than the ``subject``.
        earlier: What was said before the question, oldest first.
        plain: Question and answer are one running text: it is shown without the chat template, and every token of it
            that another one precedes counts as one of the answer.
    """

    question: str
    answer: str
    images: tuple[ImageSource, ...] = ()
    identifier: str = "example"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    earlier: tuple[Turn, ...] = ()
    plain: bool = False

    @property
    def asked(self) -> str:
        """All that is said before the answer, earlier turns included."""
        return "\n".join([*(turn.text for turn in self.earlier), self.question])

    @property
    def subject(self) -> str | None:
        """Whom or what it is about, by the ``subject`` in the metadata; None if that is absent, null or blank."""
        subject = self.metadata.get("subject")
        return None if subject is None or not str(subject).strip() else str(subject).strip()

    @property
    def subject_key(self) -> str | None:
        """The subject as it is compared: after Unicode normalisation, case folding, and with single white space."""
        return None if self.subject is None else collapsed(self.subject)
