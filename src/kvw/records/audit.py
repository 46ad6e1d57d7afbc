"""What an audit found: ``audit.json``."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from kvw.records.run import CostPart, DataPart, ModelPart
from kvw.strict import Strict

SCHEMA_VERSION = 1
Verdict = Literal["comes back", "holds", "says nothing"]
FloorBy = Literal["gold", "subjects that do not exist", "chance", "nothing"]


class Try(Strict):
    """One try of an attack on one question."""

    identifier: str
    """Name of the question."""
    asked: str
    """The text of the prompt, without the chat template."""
    how: str = ""
    """Which try of the attack."""
    answer: str
    """What is looked for."""
    reply: str | None = None
    """What the model said; None where nothing is generated."""
    found: bool
    numbers: dict[str, float] = Field(default_factory=dict)


class Found(Strict):
    """What an attack found in one model."""

    questions: int
    found: int | None
    """Questions of which at least one try found the answer; None if single answers are not told."""
    share: float
    """Share of the questions; for ``membership`` the area under the ROC curve."""
    tries: list[Try]
    losses: list[list[float]] = Field(default_factory=list)
    """The loss of each step before its update, in nats per answer token, for each training of the attack."""

    @property
    def short(self) -> Share:
        """Without the tries."""
        return Share(questions=self.questions, found=self.found, share=self.share, losses=self.losses)


class Share(Strict):
    """How much an attack found in one model."""

    questions: int
    found: int | None
    share: float
    losses: list[list[float]] = Field(default_factory=list)


class AttackLine(Strict):
    """One attack."""

    attack: str
    title: str
    now: Share
    """What the audited model gives."""
    original: Share | None
    """What the model before gives; None if it is not known."""
    floor: float
    floor_by: FloorBy
    floor_questions: int | None
    """How many questions the floor is measured on; None if it is chance or there is none."""
    excess: float
    """``now`` less the floor."""
    verdict: Verdict


class AuditData(Strict):
    """The data of an audit; the digests are salted."""

    forget: DataPart
    asked: int
    """Questions of the forget set that were asked."""
    retain: DataPart | None
    rephrasings: DataPart | None


class AuditRecord(Strict):
    """Everything an audit found. It holds the forget set: keep it confidential."""

    schema_version: int = SCHEMA_VERSION
    finished: datetime
    model: ModelPart
    original: ModelPart | None
    gold: ModelPart | None
    edit_digest: str | None
    """Digest of the numbers of the edit that was attached; None without one."""
    edit_method: str | None
    data: AuditData
    settings: dict[str, Any]
    lines: list[AttackLine]
    left_out: dict[str, str]
    """Why an attack was not made."""
    verdict: list[str]
    """The verdict in one to three sentences."""
    warnings: list[str]
    costs: CostPart
    versions: dict[str, str]
    answers: dict[str, dict[str, list[Try]]]
    """Every try by attack and model: ``now``, ``original``, ``floor``."""
