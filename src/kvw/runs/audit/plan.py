"""``kvw audit --dry-run``: which attacks would be made, and how long they take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from kvw.data import check_images
from kvw.edits import load_edit
from kvw.errors import UserError
from kvw.evaluation.attacks import relearned, relearning_settings
from kvw.evaluation.attacks.lens import LENSES
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.probability import token_scores
from kvw.progress import SILENT, Reporter
from kvw.runs.audit.attacks import ATTACKS, RELEARNING
from kvw.runs.audit.choices import options_of
from kvw.runs.audit.invented import about_nobody
from kvw.runs.audit.models import why_not
from kvw.runs.audit.prompts import prompts_of
from kvw.runs.audit.questions import Questions
from kvw.runs.audit.request import AuditRequest, AuditSets, Served, read_audit_data
from kvw.runs.weights import check_weights
from kvw.strict import Strict

TRIED, STEPS_TRIED = 8, 2
"""Questions that are asked, and steps that are made, to see how long they take."""


class PlannedAttack(Strict):
    """An attack that would be made."""

    attack: str
    title: str
    models: int
    """How often it is made: on the model, on the original, and for the floor."""
    seconds: float
    """About; results that an earlier audit has left take none."""


class AuditPlan(Strict):
    """What an audit would do."""

    model: str
    asked: int
    attacks: list[PlannedAttack]
    left_out: dict[str, str]
    seconds: float


@dataclass(frozen=True)
class Speed:
    """Seconds that one reply, one teacher-forced answer and one step of training take."""

    reply: float
    answer: float
    step: float


@dataclass(frozen=True)
class Work:
    """How many replies, teacher-forced answers and steps of training an attack takes on one model."""

    replies: int = 0
    answers: int = 0
    steps: int = 0

    def seconds(self, speed: Speed) -> float:
        """How long that takes."""
        return self.replies * speed.reply + self.answers * speed.answer + self.steps * speed.step


def dry_run(request: AuditRequest, reporter: Reporter = SILENT, sets: AuditSets | None = None) -> AuditPlan:
    """Load the model, ask it a few questions, and say how long an audit would take on this machine; write nothing.

    Raises:
        UserError: See :func:`kvw.runs.audit.run.audit`; or the model is served.
    """
    if isinstance(request.model, Served):
        raise UserError("A dry run cannot tell how fast a server answers.", do="leave --dry-run out")
    sets = sets or read_audit_data(request)
    check_images(sets.everything)
    with reporter.stage("loading the model"):
        loaded = Loaded.load(request.model, request.device, quantise=request.quantise)
    if request.edit:
        check_weights(load_edit(request.edit), loaded.fingerprint, reporter, other_weights=request.other_weights)
    left_out = dict(sets.left_out)
    left_out |= {name: why for name in request.attacks if name not in left_out and (why := why_not(name, loaded))}
    questions = Questions.of(sets.asked, sets.retain, sets.rephrasings)
    asked = _asked(request, questions)
    with reporter.stage("asking a few questions"):
        speed = _speed(
            request, loaded, sets, trains=any(name in RELEARNING and name not in left_out for name in request.attacks)
        )
    attacks = [
        PlannedAttack(
            attack=name,
            title=ATTACKS[name].title,
            models=len(asked),
            seconds=round(sum(work_of(name, one, request).seconds(speed) for one in asked), 1),
        )
        for name in request.attacks
        if name not in left_out
    ]
    total = round(sum(one.seconds for one in attacks), 1)
    return AuditPlan(model=str(request.model), asked=len(sets.asked), attacks=attacks, left_out=left_out, seconds=total)


def work_of(name: str, questions: Questions, request: AuditRequest) -> Work:
    """How much an attack asks of one model."""
    count = len(questions.examples)
    if ATTACKS[name].kind == "reply":
        return Work(replies=len(prompts_of(name, questions)))
    if ATTACKS[name].kind == "weights":
        rounds = {"relearn-retain": 1, "relearn-forget": 2}.get(name, 0)
        return Work(replies=count, steps=rounds * request.steps)
    if name == "samples":
        return Work(replies=request.samples * count)
    if name == "choice":
        return Work(answers=sum(len(options_of(one, questions)) for one in questions.examples))
    return Work(answers=count * (2 if name in LENSES or name == "membership" else 1))


def _asked(request: AuditRequest, questions: Questions) -> list[Questions]:
    """What every model would be asked."""
    nobody = about_nobody(questions)
    original = request.original is not None or request.edit is not None
    floor = questions if request.gold is not None else nobody if original else None
    return [questions, *([questions] if original else []), *([floor] if floor is not None else [])]


def _speed(request: AuditRequest, loaded: Loaded, sets: AuditSets, *, trains: bool) -> Speed:
    prepared = loaded.prepare(sets.asked[:TRIED], request.max_new_tokens)
    model, processor = loaded.model, loaded.processor

    def train() -> None:
        with relearned(model, processor, sets.asked[:TRIED], STEPS_TRIED, relearning_settings(model)):
            pass

    def reply() -> None:
        generate_answers(model, processor, prepared, max_new_tokens=request.max_new_tokens)

    def answer() -> None:
        token_scores(model, processor, prepared)

    return Speed(
        reply=_timed(reply) / len(prepared),
        answer=_timed(answer) / len(prepared),
        step=_timed(train) / STEPS_TRIED if trains else 0.0,
    )


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
