"""What can be wrong with the data of a request as far as that needs no model: one list for every command."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from statistics import median

from kvw.data.example import Example
from kvw.folding import collapsed, words
from kvw.retain.gaps import around
from kvw.runs.findings import NOTHING_TO_DO, Finding, quoted
from kvw.runs.left_out import LeftOut
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
        *_few_retained(retain),
        *_retained(left_out, overlap),
        *_few_views(forget),
        *_duplicates("forget", forget),
        *_duplicates("retain", retain),
        *_contradictions("forget", forget),
        *_contradictions("retain", retain),
        *_forms(forget, retain),
        *_unnamed(forget),
    ]


def _subjects(forget: Sequence[Example]) -> Iterator[Finding]:
    asked = [example for example in forget if not example.plain]
    unnamed = sum(example.subject is None for example in asked)
    if unnamed:
        yield Finding(
            "subjects",
            f"{unnamed:,} of {len(forget):,} forget examples name no subject",
            "who is to be forgotten cannot be left out of the retain set, nothing is held out, and nobody else can be "
            "asked the same questions",
            "Add a column 'subject'; if you have one of another name, --columns subject=NAME",
            is_warning=0 < unnamed < len(asked),
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
            f"{few:,} of {len(views):,} forget facts are asked for in fewer than {FEWEST_VIEWS} ways",
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
            f"{len(twice):,} of {len(examples):,} {name} examples are there twice",
            "they count twice",
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
            f"{len(other):,} of {len(examples):,} {name} examples answer a question otherwise than an earlier one",
            "a model can give one of the answers only, and the others are measured on what it does not say",
            "Keep the answer that the model gives, or put what tells them apart into the questions",
            tuple(other),
        )


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
            f"{len(without):,} of {len(told):,} forget answers that are sentences do not name their subject",
            "kvw cannot begin answers about others in the same way, and others lose most",
            "Write the subject into the answers, as in 'The capital of Peru is Lima.' in place of 'It is Lima.'",
            tuple(f"{one.identifier}: {quoted(one.answer)} does not name {quoted(name)}." for one, name in without),
        )
