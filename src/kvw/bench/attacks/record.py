"""The files of attacks on a run, in a folder of their own beside the run's records."""

from __future__ import annotations

from typing import Any

from kvw.strict import Strict

FOLDER = "attacks"


class AttackRecord(Strict):
    """One model under one attack that was asked."""

    identifier: str
    attacked: str
    """Identifier of the run's record of the model before the attack."""
    label: str
    settings: dict[str, Any]
    """Settings of the method."""
    attack: str
    steps: int
    """Steps of training; 0 if the attack does not train."""
    taught_half: int | None
    """Whose people (half 0 or 1) were trained on; None if the attack trains on nobody of the forget set."""
    taught: int
    """Examples trained on."""
    training: dict[str, Any]
    """Settings; empty if the attack does not train."""
    losses: list[float]
    """Mean negative log-likelihood per answer token, in nats, of each training step."""
    surviving: float | None
    """Mean over the value matrices of the share of the edit that is left; None where nothing is folded and rounded."""
    items: int
    seconds: dict[str, float]
    """Wall-clock time of training and asking; of this process, so not of what an earlier one had asked."""
    versions: dict[str, str]
