"""What can be wrong with the data of a request as far as that needs no model: one list for every command."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from functools import cache
from statistics import median

from kvw.data.columns import as_option
from kvw.data.example import Example
from kvw.data.images import image_digest
from kvw.folding import collapsed, words
from kvw.plural import agreed, counted
from kvw.retain.gaps import around
from kvw.runs.findings import NOTHING_TO_DO, Finding, quoted
from kvw.runs.left_out import LeftOut, subject_column
from kvw.runs.overlap import Overlap

FEWEST_RETAINED = 5
"""Subjects, or examples without any, below which a retain set is said to be small."""
FEWEST_VIEWS = 3
"""Phrasings or photos of a fact of which one can be held out."""
SENTENCE = 5
"""Words of an answer that is a sentence."""
SHORT = 2
"""Words of an answer that is a name or a word."""
MOST = 0.5
"""A share of examples above which it counts for the whole file."""


def data_findings(
    forget: Sequence[Example], retain: Sequence[Example], left_out: LeftOut, overlap: Overlap
) -> list[Finding]:
    """Look for everything that is likely to spoil a request.

    Args:
        forget: The forget set.
        retain: The retain set without what was left out; empty if there is none.
        left_out: What was left out of it.
        overlap: What the retain set says about the forget set.
    """
    return [
        *_subjects(forget),
        *_subjects_kept(retain),
        *_few_retained(retain),
        *_retained(left_out, overlap),
        *_few_views(forget),
        *_duplicates("forget", forget),
        *_duplicates("retain", retain),
        *_contradictions("forget", forget),
        *_contradictions("retain", retain),
        *_asked_in_both(forget, retain),
        *_forms(forget, retain),
        *_unnamed(forget),
    ]


def _subjects(forget: Sequence[Example]) -> Iterator[Finding]:
    asked = [example for example in forget if not example.plain]
    unnamed = sum(example.subject is None for example in asked)
    if unnamed:
        like = subject_column(asked)
        yield Finding(
            "subjects",
            f"{_part(unnamed, len(forget), 'forget example')} {agreed(unnamed, 'names', 'name')} no subject",
            "who is to be forgotten cannot be left out of the retain set, nothing is held out, and nobody else can be "
            "asked the same questions",
            f"If the column '{like}' holds the subjects, add {as_option({'subject': like})}"
            if like
            else "Add a column 'subject'; if you have one of another name, --columns subject=NAME",
            is_warning=0 < unnamed < len(asked),
        )


def _subjects_kept(retain: Sequence[Example]) -> Iterator[Finding]:
    """If no example of the set names a subject, none of the forget set does, and that is told of it."""
    asked = [example for example in retain if not example.plain]
    unnamed = sum(example.subject is None for example in asked)
    if 0 < unnamed < len(asked):
        yield Finding(
            "subjects of the retain set",
            f"{_part(unnamed, len(retain), 'retain example')} {agreed(unnamed, 'names', 'name')} no subject",
            "what is about someone to be forgotten is kept then, and each example counts as a subject of its own",
            "Name the subject of every example",
        )


def _few_retained(retain: Sequence[Example]) -> Iterator[Finding]:
    if not retain:
        return
    subjects = {example.subject_key for example in retain} - {None}
    few, what = (len(subjects), "subjects") if subjects else (len(retain), "examples")
    if few < FEWEST_RETAINED:
        told = f"The retain set has only {few} {what}" if few > 1 else f"The retain set has only one {what[:-1]}"
        yield Finding(
            "few to retain",
            told,
            "what must stay can hardly be told from what is to be forgotten",
            f"Add others of the same kind, {FEWEST_RETAINED} at least",
        )


def _retained(left_out: LeftOut, overlap: Overlap) -> Iterator[Finding]:
    if left_out.count:
        yield Finding(
            "forgotten in the retain set",
            str(left_out).removesuffix("."),
            "what is in both sets cannot be forgotten",
            NOTHING_TO_DO,
            is_warning=False,
        )
    if overlap.found:
        yield Finding(
            "answers in the retain set",
            str(overlap),
            "what they say is kept",
            "If one of these is to be forgotten, take it out of the retain set",
            is_warning=False,
        )


def _few_views(forget: Sequence[Example]) -> Iterator[Finding]:
    views: dict[Hashable, set[Hashable]] = defaultdict(set)
    for example in forget:
        if not example.plain:
            views[example.subject_key, collapsed(example.answer)].add((collapsed(example.asked), example.images))
    few = sum(len(found) < FEWEST_VIEWS for found in views.values())
    if few > MOST * len(views):
        yield Finding(
            "few phrasings",
            f"{_part(few, len(views), 'forget fact')} {agreed(few, 'is', 'are')} asked for in fewer than "
            f"{FEWEST_VIEWS} ways",
            "none of their phrasings can be held out, and other phrasings may still be answered",
            "Ask for each in three ways or more, with the same answer; kvw data build makes phrasings",
            is_warning=False,
        )


def _duplicates(name: str, examples: Sequence[Example]) -> Iterator[Finding]:
    seen: dict[Hashable, str] = {}
    twice = []
    for example in examples:
        key = _question(example), collapsed(example.answer)
        if key in seen:
            twice.append(f"{example.identifier} is {seen[key]} again.")
        seen.setdefault(key, example.identifier)
    if twice:
        yield Finding(
            "duplicates",
            f"{_part(len(twice), len(examples), f'{name} example')} {agreed(len(twice), 'repeats', 'repeat')} an "
            "earlier one",
            "what is there twice counts twice",
            "Leave the second one out",
            tuple(twice),
        )


def _contradictions(name: str, examples: Sequence[Example]) -> Iterator[Finding]:
    said: dict[Hashable, Example] = {}
    other = []
    for example in examples:
        first = said.setdefault((example.subject_key, *_question(example)), example)
        if collapsed(first.answer) != collapsed(example.answer):
            places = f"{first.identifier} and {example.identifier}"
            other.append(f"{places}: {quoted(first.answer)} and {quoted(example.answer)}.")
    if other:
        yield Finding(
            "contradictions",
            f"{_part(len(other), len(examples), f'{name} example')} {agreed(len(other), 'gives', 'give')} another "
            "answer to a question that an earlier one answers",
            "a model can give one of the answers only, and the others are measured on what it does not say",
            "Keep the answer that the model gives, or put what tells them apart into the questions",
            tuple(other),
        )


def _asked_in_both(forget: Sequence[Example], retain: Sequence[Example]) -> Iterator[Finding]:
    """What is kept of an answer to a question is kept of the question, and the other answer can hardly be forgotten."""
    both = {collapsed(one.asked) for one in forget} & {collapsed(one.asked) for one in retain}
    digest = cache(image_digest)

    def shown(examples: Sequence[Example]) -> Iterator[tuple[Hashable, Example]]:
        for one in examples:
            if collapsed(one.asked) in both and not one.plain:
                yield (collapsed(one.asked), tuple(map(digest, one.images))), one

    said: dict[Hashable, list[Example]] = defaultdict(list)
    for key, example in shown(forget):
        said[key].append(example)
    other = [
        f"{first.identifier} and {example.identifier}: {quoted(first.answer)} and {quoted(example.answer)}."
        for key, example in shown(retain)
        for first in said.get(key, ())[:1]
        if collapsed(example.answer) not in {collapsed(one.answer) for one in said[key]}
    ]
    if other:
        yield Finding(
            "asked in both sets",
            f"{_part(len(other), len(retain), 'retain example')} {agreed(len(other), 'asks', 'ask')} what the forget "
            f"set asks, with the same pictures if any, and {agreed(len(other), 'gives', 'give')} another answer",
            "what the model answers to one question cannot go and stay at once",
            "Take the question out of the retain set, or put right which answer is meant",
            tuple(other),
        )


def _part(count: int, of: int, noun: str) -> str:
    return f"{count:,} of {counted(of, noun)}"


def _question(example: Example) -> tuple[Hashable, ...]:
    return collapsed(example.asked), example.images, example.plain


def _forms(forget: Sequence[Example], retain: Sequence[Example]) -> Iterator[Finding]:
    sets = [[example for example in examples if not example.plain] for examples in (forget, retain)]
    if not all(sets):
        return
    differ = []
    lengths = [median(len(words(example.answer)) for example in examples) for examples in sets]
    if max(lengths) >= SENTENCE and min(lengths) <= SHORT:
        differ.append(f"answers of {lengths[0]:g} words to forget and of {lengths[1]:g} to retain")
    seen = [sum(bool(example.images) for example in examples) / len(examples) for examples in sets]
    if max(seen) > MOST and min(seen) == 0:
        differ.append(f"pictures in {seen[0]:.0%} of the questions to forget and in {seen[1]:.0%} of those to retain")
    if differ:
        yield Finding(
            "forms",
            f"Forget and retain set differ in form, with {' and '.join(differ)}",
            "the edit may tell them apart by their form, and what must stay is then not protected",
            "Ask for what must stay as you ask for what must go",
        )


def _unnamed(forget: Sequence[Example]) -> Iterator[Finding]:
    """Sentences that do not name their subject: see :class:`kvw.retain.openings.Openings`."""
    told = [one for one in forget if one.subject and not one.plain and len(words(one.answer)) >= SENTENCE]
    without = [(one, str(one.subject)) for one in told if around(one.answer, str(one.subject)) is None]
    if told and len(without) > MOST * len(told):
        yield Finding(
            "answers without their subject",
            f"{_part(len(without), len(told), 'forget answer')} in sentences {agreed(len(without), 'does', 'do')} not "
            "name the subject",
            "kvw cannot begin answers about others in the same way, and others lose most",
            "Write the subject into the answers, as in 'The capital of Peru is Lima.' in place of 'It is Lima.'",
            tuple(f"{one.identifier}: {quoted(one.answer)} does not name {quoted(name)}." for one, name in without),
        )
