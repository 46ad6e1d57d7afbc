"""A question whose answer is not known yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvw.data.example import Example, ImageSource


@dataclass(frozen=True)
class Question:
    """A question for a model to answer.

    Args:
        question: What is asked.
        images: The images in the order in which the prompt shows them.
        identifier: How messages name it.
        metadata: Metadata for the example that comes of it.
        opening: How the answer begins; the model goes on from there.
    """

    question: str
    images: tuple[ImageSource, ...] = ()
    identifier: str = "question"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    opening: str = ""

    def answered(self, answer: str) -> Example:
        """The example with this answer."""
        return Example(self.question, answer, self.images, self.identifier, self.metadata)
