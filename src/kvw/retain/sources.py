"""Everything that a model must keep, gathered for one forget set."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from kvw.data.example import Example
from kvw.errors import UserError
from kvw.folding import words
from kvw.measuring.in_memory import InMemory
from kvw.progress import Progress
from kvw.retain import NEIGHBOURS, SOURCES
from kvw.retain.answering import LONGEST_ANSWER, self_answered, usable
from kvw.retain.everyday import everyday_questions
from kvw.retain.facts import NAMES_OF_A_GAP, fact_gaps, fact_questions
from kvw.retain.gaps import same_name
from kvw.retain.mentions import Mentions
from kvw.retain.neighbours import neighbour_questions, pictured_questions
from kvw.retain.openings import ForgetAnswers
from kvw.retain.pictures import picture_questions
from kvw.retain.proposals import MOST_NAMES, neighbour_names
from kvw.retain.question import Question
from kvw.retain.texts import text_examples

NAMED = ("facts", "neighbours")
"""Sources whose questions name their subject. What they ask is a fact, and a short answer says it."""
SHORT = {*NAMED, *NEIGHBOURS}
"""Sources whose answers are short."""
SHORT_ANSWER = 16
"""The longest answer of these, in tokens."""


@dataclass(frozen=True)
class Source:
    """Retain examples of one origin.

    Args:
        name: Of :data:`kvw.retain.SOURCES`.
        examples: What is to be kept; each has its source and a subject of its own in the metadata.
        excluded: Others, which mention what is to be forgotten.
        unusable: How many others the model cannot be shown, or has not given a usable answer.
    """

    name: str
    examples: list[Example]
    excluded: list[Example]
    unusable: int = 0

    @property
    def left_out(self) -> int:
        """How many are excluded."""
        return len(self.excluded)

    @property
    def everything(self) -> list[Example]:
        """The examples and those excluded, in an order that does not depend on which are which."""
        return sorted([*self.examples, *self.excluded], key=lambda one: natural_order(one.identifier))


def natural_order(identifier: str) -> tuple[str, int]:
    """``everyday:12`` after ``everyday:2``; what has no number as it stands."""
    name, _, number = identifier.rpartition(":")
    return (name, int(number)) if number.isdigit() else (identifier, 0)


def gather(
    loaded: InMemory,
    forget: Sequence[Example],
    *,
    sources: Collection[str],
    names: Sequence[str] | None = None,
    takes_images: bool,
    progress: Progress | None = None,
) -> list[Source]:
    """Gather retain examples, without those that mention what is to be forgotten.

    All questions are answered before anything is left out, so that what is kept in the cache serves every forget set;
    only neighbours are asked for, and asked about, for each forget set anew.

    Args:
        loaded: The model, without any edit.
        forget: The forget set.
        sources: Which of :data:`kvw.retain.SOURCES` to use. Pictures take a model that takes images, neighbours take
            forget questions that name their subject, and names, and picture neighbours forget questions that show one
            picture; without, these are not among the result.
        names: Whom or what else the forget questions are asked about. None lets the model name them, no names asks
            about nobody.
        takes_images: Whether the model takes images.
        progress: Called with (questions answered, questions in all); before that, while names are looked for, with
            (questions looked at, 0).

    Returns:
        The sources, in the order of :data:`kvw.retain.SOURCES`.

    Raises:
        UserError: There is no such source, model and processor do not fit together, or memory runs out on a single
            question.
    """
    if unknown := sorted(set(sources) - set(SOURCES)):
        raise UserError("There is no such source of retain examples.", found=unknown[0], do=f"use {', '.join(SOURCES)}")
    searching = partial(_searching, progress) if progress is not None else None
    asked = {
        name: _named_questions(loaded, name, forget, names, searching)
        if name in NAMED
        else _questions(name, forget, takes_images)
        for name in SOURCES
        if name in sources
    }
    total, done = sum(map(len, asked.values())), 0
    mentions = Mentions(forget)
    gathered = []
    for name, questions in asked.items():
        if name == "text":
            texts = text_examples()
            shown = usable(texts, loaded)
            gathered.append(_source(name, shown, forget, mentions, len(texts) - len(shown)))
        elif questions:
            report = partial(_onward, progress, done, total) if progress is not None else None
            longest = SHORT_ANSWER if name in SHORT else LONGEST_ANSWER
            answered = self_answered(loaded, questions, max_new_tokens=longest, progress=report)
            gathered.append(_source(name, answered, forget, mentions, len(questions) - len(answered)))
        done += len(questions)
    return gathered


def stand_ins(
    loaded: InMemory,
    forget: Sequence[Example],
    *,
    sources: Collection[str],
    names: Sequence[str] | None = None,
    takes_images: bool,
) -> list[Source]:
    """What :func:`gather` would give at most, with other names and long answers in place of the model's.

    Nothing is asked and nothing left out: for plans of what a run takes. Arguments as of :func:`gather`.
    """
    if names is None:
        names = [f"Somebody {number}" for number in range(1, MOST_NAMES + 1)]
    made: dict[str, list[Example]] = {}
    for name in (name for name in SOURCES if name in sources):
        if name == "text":
            made[name] = text_examples()
            continue
        if name == "facts":
            questions = [
                Question(gap.filled(gap.shown), (), f"facts:{number}.{copy}", {"source": name, "subject": gap.shown})
                for number, gap in enumerate(fact_gaps(), start=1)
                for copy in range(NAMES_OF_A_GAP + 1)
            ]
        else:
            questions = (
                neighbour_questions(forget, names) if name == "neighbours" else _questions(name, forget, takes_images)
            )
        longest = " ".join(["the"] * (SHORT_ANSWER if name in SHORT else LONGEST_ANSWER))
        made[name] = [question.answered(longest) for question in questions]
    return [Source(name, usable(examples, loaded), []) for name, examples in made.items() if examples]


def _questions(name: str, forget: Sequence[Example], takes_images: bool) -> list[Question]:
    if name == "everyday":
        return [
            Question(question, (), f"everyday:{number}", {"source": "everyday", "subject": f"everyday {number}"})
            for number, question in enumerate(everyday_questions(), start=1)
        ]
    if not takes_images:
        return []
    pictures = picture_questions()
    if name == "pictures":
        return pictures
    return pictured_questions(forget, list(dict.fromkeys(one.images[0] for one in pictures)))


def _named_questions(
    loaded: InMemory, name: str, forget: Sequence[Example], names: Sequence[str] | None, progress: Progress | None
) -> list[Question]:
    if name == "facts":
        return fact_questions(loaded, progress)
    if names is None:
        return neighbour_questions(forget, neighbour_names(loaded, forget, progress=progress))
    return neighbour_questions(forget, names)


def _source(
    name: str, examples: Sequence[Example], forget: Sequence[Example], mentions: Mentions, unusable: int = 0
) -> Source:
    named = {one.subject for one in forget if one.subject is not None} if name in NAMED else set()
    subjects, answers = [words(one) for one in named], ForgetAnswers(forget if name in NEIGHBOURS else [])
    parts: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        subject = example.subject or ""
        own = words(subject)
        about = any(same_name(own, one) for one in subjects)
        # A neighbour may share a first name with the subject.
        out = about or mentions.inside(example, but=subject if name == "neighbours" else "")
        parts[out or answers.given_by(example)].append(example)
    return Source(name, *parts, unusable)


def _searching(progress: Progress, done: int, _: int) -> None:
    progress(done, 0)


def _onward(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress(before + done, total)
