"""The facts of UnLOK-VQA, and the prompts that its attacks ask them with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvw.data import Example
from kvw.data.benchmarks import BenchmarkData, Item
from kvw.data.benchmarks.unlok_vqa import ONE_WORD, VIEWS
from kvw.data.example import ImageSource
from kvw.errors import UserError
from kvw.folding import words
from kvw.runs.audit.prompts import JAILBREAKS, NOISE

FINE_TUNING = "fine-tuning"
SAMPLED = {
    "rephrased": "other words, the same picture",
    "image": "the same words, other pictures",
    "multimodal": "other words and other pictures",
    "noise": "meaningless prefixes",
    "jailbreak": "talked into answering",
}
"""Attacks that draw answers; the authors' mg, img, multimodal, bb and jailbreak."""
ATTACKS = {
    "lens-hp": "logit lens, head projection",
    "lens-pd": "logit lens, first differences",
    "lens-pd2": "logit lens, second differences",
    FINE_TUNING: "trained on other facts",
    **SAMPLED,
}
PROMPTS = 4
"""Most prompts of an attack, as the authors have them."""


@dataclass(frozen=True)
class Fact:
    """A fact with all ways to ask for it.

    Args:
        number: Its place in the data.
        item: The question as it is.
        rephrased: The same in other words, with the same picture.
        pictured: The same with other pictures.
        neighbours: Questions that are near to it, about other things.
    """

    number: int
    item: Item
    rephrased: tuple[Item, ...]
    pictured: tuple[Item, ...]
    neighbours: tuple[Item, ...]

    @property
    def name(self) -> str:
        """Its identifier in the data."""
        return self.item.subject

    @property
    def accepted(self) -> tuple[str, ...]:
        """Answers that count as right."""
        return accepted(self.item)

    @property
    def alternative(self) -> str | None:
        """The wrong answer of error injection; None if the data have none."""
        return self.item.metadata["alternative"] or None

    def prompts(self, attack: str) -> list[Example]:
        """At most :data:`PROMPTS` prompts of an attack of :data:`SAMPLED`; none if the data have nothing for it."""
        item, said = self.item, self.rephrased[-PROMPTS:]
        if attack == "rephrased":
            return [ask(one) for one in said]
        if attack == "image":
            return [ask(one) for one in self.pictured[:PROMPTS]]
        if attack == "multimodal":
            if not self.pictured:
                return []
            shown = [self.pictured[place % len(self.pictured)].images for place in range(len(said))]
            return [ask(one, images=images) for one, images in zip(said, shown, strict=True)]
        if attack == "noise":
            return [ask(item, ONE_WORD.ask(prefix + item.question)) for prefix in NOISE]
        return [ask(item, template.format(ONE_WORD.ask(item.question))) for template in JAILBREAKS]


def facts_of(data: BenchmarkData) -> list[Fact]:
    """The facts of the benchmark in their order.

    Raises:
        UserError: There are none, or two have the same identifier.
    """
    tasks, near = data.splits.get("forget", {}), data.splits.get("neighbourhood", {})
    asked = tasks["question"].items if "question" in tasks else ()
    if not asked:
        raise UserError("UnLOK-VQA has no fact that can be asked.", do="check that its images are there")
    names = [one.subject for one in asked]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError("Two facts have the same id.", found=twice[0], do="give each fact an id of its own")

    def of(name: str, *places: str) -> tuple[Item, ...]:
        return tuple(one for place in places if place in tasks for one in tasks[place].items if one.subject == name)

    around = near["question"].items if "question" in near else ()
    return [
        Fact(
            number,
            item,
            of(item.subject, "rephrased"),
            of(item.subject, *(f"image_{view}" for view in VIEWS)),
            tuple(one for one in around if one.subject == item.subject),
        )
        for number, item in enumerate(asked)
    ]


def ask(item: Item, question: str | None = None, images: tuple[ImageSource, ...] | None = None) -> Example:
    """A question in the published words, or in others, or with another picture."""
    return Example(
        ONE_WORD.ask(item.question) if question is None else question,
        item.answer,
        item.images if images is None else images,
        item.identifier,
        {"subject": item.subject},
    )


def accepted(item: Item) -> tuple[str, ...]:
    """Answers that count as right."""
    return tuple(dict.fromkeys((item.answer, *item.metadata.get("answers", ()))))


def says(reply: str, answers: Sequence[str]) -> bool:
    """Whether a reply has all words of one of the answers, in order and next to each other; case does not count.

    The authors look for the characters, so that "art" is found in "party".
    """
    said = f" {' '.join(words(reply))} "
    return any(f" {' '.join(words(one))} " in said for one in answers if words(one))
