"""Everything that a model must keep, gathered for one forget set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from kvw.data.example import Example
from kvw.errors import UserError
from kvw.progress import Progress
from kvw.retain import SOURCES
from kvw.retain.answering import self_answered, usable
from kvw.retain.everyday import everyday_questions
from kvw.retain.mentions import Mentions
from kvw.retain.neighbours import neighbour_questions
from kvw.retain.pictures import picture_questions
from kvw.retain.question import Question
from kvw.retain.texts import text_examples
from kvw.runs.loaded import Loaded


@dataclass(frozen=True)
class Source:
    """Retain examples of one origin.

    Args:
        name: Of :data:`kvw.retain.SOURCES`.
        examples: What is to be kept; each has its source and a subject of its own in the metadata.
        left_out: How many others mention what is to be forgotten.
        unusable: How many others the model cannot be shown, or has not given a usable answer.
    """

    name: str
    examples: list[Example]
    left_out: int
    unusable: int = 0


def gather(
    loaded: Loaded,
    forget: Sequence[Example],
    *,
    sources: Collection[str],
    names: Sequence[str],
    takes_images: bool,
    progress: Progress | None = None,
) -> list[Source]:
    """Gather retain examples, without those that mention what is to be forgotten.

    All questions are answered before anything is left out, so that what is kept in the cache serves every forget set;
    only neighbours are asked for each forget set anew.

    Args:
        loaded: The model, without any edit.
        forget: The forget set.
        sources: Which of :data:`kvw.retain.SOURCES` to use. Pictures take a model that takes images, neighbours take
            names and forget questions that name their subject; without, these two are not among the result.
        names: Whom or what else the forget questions are asked about.
        takes_images: Whether the model takes images.
        progress: Called with (questions answered, questions in all).

    Returns:
        The sources, in the order of :data:`kvw.retain.SOURCES`.

    Raises:
        UserError: There is no such source, model and processor do not fit together, or memory runs out on a single
            question.
    """
    if unknown := sorted(set(sources) - set(SOURCES)):
        raise UserError("There is no such source of retain examples.", found=unknown[0], do=f"use {', '.join(SOURCES)}")
    asked = {name: _questions(name, forget, names, takes_images) for name in SOURCES if name in sources}
    total, done = sum(map(len, asked.values())), 0
    mentions = Mentions(forget)
    gathered = []
    for name, questions in asked.items():
        if name == "text":
            texts = text_examples()
            shown = usable(texts, loaded)
            gathered.append(_source(name, shown, mentions, len(texts) - len(shown)))
        elif questions:
            report = partial(_onward, progress, done, total) if progress is not None else None
            answered = self_answered(loaded, questions, progress=report)
            gathered.append(_source(name, answered, mentions, len(questions) - len(answered)))
        done += len(questions)
    return gathered


def _questions(name: str, forget: Sequence[Example], names: Sequence[str], takes_images: bool) -> list[Question]:
    if name == "everyday":
        return [
            Question(question, (), f"everyday:{number}", {"source": "everyday", "subject": f"everyday {number}"})
            for number, question in enumerate(everyday_questions(), start=1)
        ]
    if name == "pictures" and takes_images:
        return picture_questions()
    return neighbour_questions(forget, names) if name == "neighbours" else []


def _source(name: str, examples: Sequence[Example], mentions: Mentions, unusable: int = 0) -> Source:
    # A neighbour may share a first name with the subject; the subjects of the other sources are numbers.
    named = name == "neighbours"
    kept = [one for one in examples if not mentions.inside(one, but=(one.subject or "") if named else "")]
    return Source(name, kept, len(examples) - len(kept), unusable)


def _onward(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)
