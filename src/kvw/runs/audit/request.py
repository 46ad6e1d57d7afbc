"""What an audit is asked to do, and its data; importing this loads nothing heavy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from kvw.data import Example, read_examples
from kvw.data.reading import AS_IT_IS, Reading
from kvw.errors import UserError
from kvw.folding import collapsed
from kvw.models.checkpoint import Checkpoint
from kvw.runs.audit.attacks import ATTACKS
from kvw.runs.audit.invented import about_nobody
from kvw.runs.audit.questions import Questions
from kvw.runs.first_checks import check_edit_files
from kvw.runs.left_out import without_forgotten
from kvw.runs.union import joined, read_forget_files
from kvw.settings import check_at_least

if TYPE_CHECKING:
    import torch

    from kvw.models.quantised import Quantise

LEARNING_RATE = 1e-5
THRESHOLD = 0.1
"""How far a share may lie above the floor before the attack counts as bringing answers back."""


@dataclass(frozen=True)
class Served:
    """Models behind a server that speaks OpenAI's protocol.

    Args:
        url: Of the server.
        model: What the server calls the audited model; None for the only one that it lists.
        original: What it calls the model before; None if it has none.
        thought_tokens: Tokens that a model may use to think, beside those of its answer.
    """

    url: str
    model: str | None = None
    original: str | None = None
    thought_tokens: int = 0


@dataclass(frozen=True)
class AuditRequest:
    """Which model to attack, and how.

    Args:
        model: The checkpoint, or where a model is served. Of a served model only replies can be attacked.
        forget: Files of the forget set.
        out: Directory to write.
        edit: Edit to attach; without it the model is attacked as it is.
        retain: File of the retain set: to train on, and for answers to choose from.
        original: The model before; None: ``model`` without the edit, if there is one.
        gold: A model that never knew.
        rephrasings: File of other ways to ask, with the answers and subjects of the forget set, and other photos.
        attacks: Their names.
        samples: Answers that ``samples`` draws.
        budget: Candidates of the logit lens.
        steps, learning_rate: Steps and learning rate of relearning.
        at_most: Most questions that are asked, drawn with seed 0; 0 asks all.
        max_new_tokens: The longest answer, in tokens.
        threshold: What above the floor counts as coming back.
        other_weights: Whether the edit may have been made on other weights.
        show_examples: Whether the page shows questions and answers.
        force: Replace what ``out`` holds.
        device: Where to run; see :class:`kvw.runs.request.EraseRequest`.
        quantise: As in ``kvw erase``.
        reading: As in ``kvw erase``.

    Raises:
        UserError: A number makes no sense.
    """

    model: Checkpoint | Served
    forget: Sequence[Path]
    out: Path
    edit: Path | None = None
    retain: Path | None = None
    original: Checkpoint | None = None
    gold: Checkpoint | None = None
    rephrasings: Path | None = None
    attacks: tuple[str, ...] = tuple(ATTACKS)
    samples: int = 20
    budget: int = 20
    steps: int = 100
    learning_rate: float = LEARNING_RATE
    at_most: int = 200
    max_new_tokens: int = 50
    threshold: float = THRESHOLD
    other_weights: bool = False
    show_examples: bool = False
    force: bool = False
    device: torch.device | str | None = None
    quantise: Quantise | None = None
    reading: Reading = AS_IT_IS

    def __post_init__(self) -> None:
        least = {"max_new_tokens": 1, "samples": 1, "budget": 10, "steps": 1, "at_most": 0}
        for name, fewest in least.items():
            check_at_least(f"--{name.replace('_', '-')}", getattr(self, name), fewest)
        if not 0 <= self.threshold < 1:  # NaN is refused too
            raise UserError("--fail-above lies from 0 to below 1.", found=str(self.threshold), do="0.1 is usual")
        if not 0 < self.learning_rate < 1:
            raise UserError(
                "--learning-rate lies between 0 and 1.", found=str(self.learning_rate), do="give 1e-5 for instance"
            )

    def inputs(self) -> list[Path]:
        """Everything that the audit reads."""
        models = [one.folder for one in (self.model, self.original, self.gold) if isinstance(one, Checkpoint)]
        return [*models, *self.forget, *(path for path in (self.edit, self.retain, self.rephrasings) if path)]


@dataclass(frozen=True)
class AuditSets:
    """The data of an audit.

    Args:
        forget: The whole forget set; every identifier is there once.
        asked: Those that are asked.
        retain: The retain set without what the forget set is about; empty without one.
        rephrasings: Other ways to ask, by the identifier of the question.
        unmatched: Rows of the rephrasings that ask for nothing that is asked.
        left_out: Why an attack is not possible with these data.
    """

    forget: list[Example]
    asked: list[Example]
    retain: list[Example]
    rephrasings: dict[str, tuple[Example, ...]]
    unmatched: int
    left_out: dict[str, str]

    @property
    def everything(self) -> list[Example]:
        """All examples."""
        return [*self.forget, *self.retain, *(one for many in self.rephrasings.values() for one in many)]


def read_audit_data(request: AuditRequest) -> AuditSets:
    """Read all files of an audit.

    Raises:
        UserError: A file cannot be used, no row of the rephrasings belongs to the forget set, or no attack is possible.
    """
    if request.edit is not None:
        check_edit_files([request.edit])
    forget = _told_apart(joined(read_forget_files(request.forget, request.reading))[0])
    retain = without_forgotten(read_examples(request.retain, request.reading), forget)[0] if request.retain else []
    asked = forget
    if 0 < request.at_most < len(forget):
        asked = [forget[place] for place in sorted(Random(0).sample(range(len(forget)), request.at_most))]
    rephrasings, unmatched = _rephrasings(request.rephrasings, asked, request.reading)
    reasons = {name: why for name in request.attacks if (why := _why_not(name, asked, retain))}
    if isinstance(request.model, Served):
        inside = [name for name in request.attacks if ATTACKS[name].kind not in ("reply", "samples")]
        reasons |= dict.fromkeys(inside, "it needs the model itself, and a server gives replies only")
    if reasons.keys() >= set(request.attacks):
        found = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        raise UserError("None of the attacks is possible with these data.", found=found, do="name others in --attacks")
    return AuditSets(forget, asked, retain, rephrasings, unmatched, reasons)


def _told_apart(examples: Sequence[Example]) -> list[Example]:
    """The examples with an identifier of their own each."""
    counts, seen = Counter(one.identifier for one in examples), Counter[str]()
    facts = []
    for example in examples:
        seen[example.identifier] += 1
        again = f"{example.identifier} ({seen[example.identifier]})"
        facts.append(replace(example, identifier=again) if counts[example.identifier] > 1 else example)
    return facts


def _rephrasings(
    path: Path | None, asked: Sequence[Example], reading: Reading
) -> tuple[dict[str, tuple[Example, ...]], int]:
    if path is None:
        return {}, 0
    rows = read_examples(path, reading)
    by_fact: dict[tuple[str | None, str], list[Example]] = {}
    for row in rows:
        by_fact.setdefault(_fact(row), []).append(row)
    by_question = {one.identifier: tuple(by_fact.get(_fact(one), ())) for one in asked}
    matched = sum(len(by_fact.get(fact, ())) for fact in {_fact(one) for one in asked})
    if not matched:
        raise UserError(
            f"{path.name} has no other way to ask for any answer of the forget set.",
            found=f"{len(rows)} rows, none with an answer and a subject of the forget set",
            do="give each row the answer and the subject that the forget set has",
        )
    return {identifier: many for identifier, many in by_question.items() if many}, len(rows) - matched


def _fact(example: Example) -> tuple[str | None, str]:
    return example.subject_key, collapsed(example.answer)


def _why_not(name: str, asked: Sequence[Example], retain: Sequence[Example]) -> str:
    """Why an attack is not possible; empty if it is, as far as the data tell."""
    subjects = {example.subject_key for example in asked}
    if name == "name" and subjects == {None}:
        return "no question has a subject"
    if name == "photo" and not any(example.images for example in asked):
        return "no question has a photo"
    if name == "relearn-retain" and not retain:
        return "there is no --retain"
    if name == "relearn-forget" and (None in subjects or len(subjects) < 2):
        return "it takes two subjects, and every question must have one"
    if name == "membership" and about_nobody(Questions.of(asked, retain)) is None:
        return "no question names its subject without showing it"
    if name == "choice" and len({collapsed(one.answer) for one in (*asked, *retain)}) < 2:
        return "there is one answer only"
    return ""
