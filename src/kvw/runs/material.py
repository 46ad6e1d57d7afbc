"""What ``kvw erase`` solves with, and what it judges by: data of the user, shipped sources, and what is held out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kvw.data import Example
from kvw.data.shared import RetainSet, is_shared
from kvw.evaluation.language import everyday_examples
from kvw.models.loading import is_text_model
from kvw.progress import Progress
from kvw.records.run import SourcePart
from kvw.retain.sources import Source, gather
from kvw.runs.earlier import WhoAsked
from kvw.runs.task import Task
from kvw.runs.terms import Sets, Terms
from kvw.selection.held_out import split_forget, split_retain
from kvw.selection.splits import FORGET, HELD_OUT_FORGET, TEXT

OWN = "retain"
"""The user's own retain set among the sources."""
MOST_FORGET, MOST_HELD_OUT, MOST_TEXT, MOST_RETAIN = 32, 32, 80, 16
"""What judges an edit: questions of each forget split, of each held-out source, plain sentences, and questions that the
solve was given. Many sentences, as no more than :data:`kvw.retain.KEEP` of plain text may be lost."""


@dataclass(frozen=True)
class Material:
    """The examples of a run, divided.

    Args:
        forget: What the method forgets with.
        retain: What it keeps with.
        judged: What edits are judged by, by split: the two forget splits, ``retain`` (seen by the solve), each held-out
            source, and plain text.
        must_stay: The splits of ``judged`` that must be kept, those that tell most for their price first.
        sources: Where the retain examples come from.
    """

    forget: list[Example]
    retain: RetainSet
    judged: dict[str, list[Example]]
    must_stay: list[str]
    sources: list[SourcePart]

    def notes(self) -> list[str]:
        """What the user should know of it."""
        if not self.sources:
            return []
        told = [
            f"{part.examples} of {part.name}" + f" ({part.left_out} left out)" * (part.left_out > 0)
            for part in self.sources
        ]
        held = sum(part.held_out for part in self.sources)
        return [f"What must stay: {', '.join(told)}; {held} of them only judge the edit."]


def gather_material(task: Task, *, speaks: bool, progress: Progress | None = None) -> Material:
    """Gather the retain sources, hold parts out, and say what edits are judged by.

    Args:
        task: Has the original model, the data of the user, and which sources to use.
        speaks: Whether the model writes ordinary language. Otherwise it is not asked everyday questions: its answers
            would be noise.
        progress: Called with (questions answered, questions in all).
    """
    gathered = []
    if speaks and task.request.sources:
        gathered = gather(task.loaded, task.data.forget, **asked_for(task), progress=progress)
    return dealt_out(task.data, gathered, task.request, speaks=speaks)


def dealt_out(data: Sets, gathered: Sequence[Source], request: Terms, *, speaks: bool) -> Material:
    """Hold parts out of what there is, and say what edits are judged by.

    Args:
        data: The user's.
        gathered: The sources beside.
        request: Its settings say whether the method holds views of forget facts out itself.
        speaks: As of :func:`gather_material`.
    """
    own = [Source(OWN, _named(data.retain), [])] if data.retain else []
    gathered = [_without(source, data.earlier) for source in gathered]
    retain: list[Example] = []
    excluded: list[Example] = []
    held_out: dict[str, list[Example]] = {}
    parts = []
    for source in [*own, *gathered]:
        # What is excluded is divided with the rest, so that the same is held out whatever is to be forgotten.
        out = set(map(id, source.excluded))
        solved, held = split_retain(source.everything)
        if data.retain_statistics is not None:  # they are all that the solve gets
            solved, held = [], source.everything
        excluded += [_alone(example) for example in solved if id(example) in out and is_shared(example)]
        retain += [_alone(example) for example in solved if id(example) not in out]
        held = [example for example in held if id(example) not in out]
        if held:
            held_out[f"held-out {source.name}"] = spread(held, MOST_TEXT if source.name == "text" else MOST_HELD_OUT)
        parts.append(
            SourcePart(
                name=source.name,
                examples=len(source.examples),
                held_out=len(held),
                left_out=source.left_out,
                unusable=source.unusable,
            )
        )
    # A method that holds out views itself needs all there are.
    holds_out = request.made_by.holds_out(request.settings)
    forget, views = (data.forget, []) if holds_out else split_forget(data.forget)
    judged = {FORGET: of_all_subjects(forget, MOST_FORGET)}
    if views:
        judged[HELD_OUT_FORGET] = of_all_subjects(views, MOST_FORGET)
    if retain:
        judged[OWN] = spread(retain, MOST_RETAIN)
    if (text := "held-out text") in held_out:
        held_out = {TEXT: held_out.pop(text), **held_out}
    elif speaks:
        held_out = {TEXT: everyday_examples(), **held_out}
    must_stay = list(held_out)
    if data.retain and f"held-out {OWN}" not in held_out:  # too few subjects to hold any out: better than nothing
        judged[OWN] = spread([example for example in retain if "source" not in example.metadata], MOST_HELD_OUT)
        must_stay.append(OWN)
    return Material(forget, RetainSet(retain, excluded), judged | held_out, must_stay, parts)


def _without(source: Source, earlier: WhoAsked) -> Source:
    """A source without questions about those who asked to be forgotten earlier."""
    out = [example for example in source.examples if example.subject_key in earlier]
    if not out:
        return source
    examples = [example for example in source.examples if example.subject_key not in earlier]
    return Source(source.name, examples, [*source.excluded, *out], source.unusable)


def spread(examples: Sequence[Example], most: int) -> list[Example]:
    """Up to ``most`` examples, from all over the list."""
    step = max(1.0, len(examples) / most)
    return [examples[int(place * step)] for place in range(min(len(examples), most))]


def of_all_subjects(examples: Sequence[Example], most: int) -> list[Example]:
    """Up to ``most`` examples, in order: one of each subject before a second of any, and different ones of each.

    Of more subjects, or of more that have a further example, those are taken that are evenly far apart.
    """
    of_subject: dict[Hashable, list[int]] = {}
    for row, example in enumerate(examples):
        of_subject.setdefault(example.subject_key or row, []).append(row)
    own, chosen = list(of_subject.values()), list[int]()
    for turn in range(max(map(len, own), default=0)):
        # Not the first of each: forget sets often hold the same phrasings of a question in the same order.
        rows = [own[place][(place + turn) % len(own[place])] for place in range(len(own)) if turn < len(own[place])]
        step = max(1.0, len(rows) / max(most - len(chosen), 1))
        chosen += [rows[int(place * step)] for place in range(min(len(rows), most - len(chosen)))]
    return [examples[row] for row in sorted(chosen)]


def asked_for(task: Task) -> dict[str, Any]:
    """What :func:`kvw.retain.sources.gather` is to gather."""
    return {
        "sources": task.request.sources,
        "names": task.data.neighbours,
        "takes_images": not is_text_model(task.loaded.model.config),
    }


def _alone(example: Example) -> Example:
    """A shared example as a subject of its own, so that each weighs the same whoever else is asked about."""
    if not is_shared(example):
        return example
    return replace(example, metadata={**example.metadata, "subject": example.identifier})


def _named(retain: Sequence[Example]) -> list[Example]:
    """The user's examples, each with a subject: without, it is a subject of its own.

    A column ``source`` of theirs goes: here it would say that they are shipped.
    """
    return [
        replace(
            example,
            metadata={
                **{name: value for name, value in example.metadata.items() if name != "source"},
                "subject": example.subject or f"{OWN} {row}",
            },
        )
        for row, example in enumerate(retain, 1)
    ]
