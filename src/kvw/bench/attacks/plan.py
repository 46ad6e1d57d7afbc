"""Which attacks are made on which models of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvw.bench.record import Manifest, ModelRecord
from kvw.bench.results import Choice, chosen_halves
from kvw.errors import UserError
from kvw.known import known
from kvw.settings import Count, check

RELEARN_RETAIN, RELEARN_FORGET = "relearn-retain", "relearn-forget"
ATTACKS = {
    RELEARN_RETAIN: "trained on the retain set",
    RELEARN_FORGET: "trained on half of the people to forget, and asked about the other half",
    "bf16": "stored in bfloat16, the edit folded in",
    "fp16": "stored in float16, the edit folded in",
    "int8": "quantised to 8 bits, round to nearest in groups of 128",
    "int4": "quantised to 4 bits, round to nearest in groups of 128",
}
"""What each does to a model."""
BEFORE = "before"
"""No attack: the models as the run has asked them."""


@dataclass(frozen=True)
class Attack:
    """One attack.

    Args:
        name: One of :data:`ATTACKS`, or :data:`BEFORE`.
        steps: Steps of training; 0 for those that do not train.
    """

    name: str
    steps: int = 0

    @property
    def title(self) -> str:
        """The head of its column."""
        return f"{self.name} {self.steps}" if self.steps else self.name

    @property
    def by_half(self) -> bool:
        """Whether it trains on the people of one half."""
        return self.name == RELEARN_FORGET


@dataclass(frozen=True)
class Target:
    """A model of the run.

    Args:
        record: Record of the run.
        chosen_on: The halves whose people are not reported of it: those that have chosen its settings, and the people
            that it may relearn. For vanilla and gold every half in turn.
    """

    record: ModelRecord
    chosen_on: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """One attack on one model.

    Args:
        target: The model.
        attack: The attack.
        half: Whose people are trained on; None if the attack trains on nobody of the forget set.
    """

    target: Target
    attack: Attack
    half: int | None = None

    @property
    def reported(self) -> frozenset[int]:
        """The halves whose people the model is asked about."""
        return frozenset(1 - half for half in (self.target.chosen_on if self.half is None else (self.half,)))


def parse_attacks(names: Sequence[str], steps: Sequence[int]) -> list[Attack]:
    """The attacks that a user has named, each once; those that train once for each number of steps.

    Raises:
        UserError: There is no such attack (the message names the closest), or a number of steps makes no sense.
    """
    for count in steps:
        check("steps", count, Count)
    if not names or not steps:
        raise UserError("Name at least one attack and one number of steps.", do=f"attacks: {', '.join(ATTACKS)}")
    attacks: dict[Attack, None] = {}
    for name in names:
        known(name, ATTACKS, "attack")
        trains = name in (RELEARN_RETAIN, RELEARN_FORGET)
        attacks |= dict.fromkeys(Attack(name, count) for count in (steps if trains else (0,)))
    return list(attacks)


def find_targets(manifest: Manifest, choices: Sequence[Choice], records: Sequence[ModelRecord]) -> list[Target]:
    """Vanilla, every method with each of its chosen settings, gold.

    Args:
        manifest: What the run is about.
        choices: The settings that were chosen.
        records: Every model that was asked.
    """
    halves = chosen_halves(manifest)
    targets = [Target(record, halves) for record in records if record.label == "vanilla"]
    for record in records:
        if on := tuple(choice.chosen_on for choice in choices if choice.identifier == record.identifier):
            targets.append(Target(record, on))
    return [*targets, *(Target(record, halves) for record in records if record.label == "gold")]


def find_jobs(target: Target, attacks: Sequence[Attack]) -> list[Job]:
    """Every attack on one model."""
    return [
        Job(target, attack, half) for attack in attacks for half in (target.chosen_on if attack.by_half else (None,))
    ]
