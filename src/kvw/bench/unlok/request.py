"""What ``kvw bench unlok`` is asked to do; importing this loads nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvw.methods.registry import DEFAULT, get_method
from kvw.settings import check_at_least

if TYPE_CHECKING:
    from kvw.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class UnlokRequest:
    """What to attack.

    Args:
        model: The model that knows the facts.
        source: UnLOK-VQA: a hub id or a folder with a copy; None for the authors' hub id.
        images: Folder with its pictures.
        out: Directory that grows; the same request goes on where it stopped.
        facts: Identifiers of the facts to forget; all that the model knows if empty.
        edit: An edit that forgets them all. None: each fact gets an edit of its own, as ``kvw erase`` makes it.
        method, settings, choose: As of :class:`kvw.runs.request.EraseRequest`, if there is no edit.
        retain: File of what must stay, if there is no edit.
        rephrased: Forget the rephrasings and the other pictures of a fact, too: the authors' input rephrasing.
        gold: A model that never knew the facts.
        budget: B: candidates or answers that an attack may have.
        epochs: Epochs of the attack that trains on other facts.
        device: See :class:`kvw.runs.request.EraseRequest`.

    Raises:
        UserError: A number makes no sense.
    """

    model: Checkpoint
    source: str | Path | None
    images: Path
    out: Path
    facts: tuple[str, ...] = ()
    edit: Path | None = None
    method: str = DEFAULT
    settings: Any = None
    choose: bool | None = None
    retain: Path | None = None
    rephrased: bool = False
    gold: Checkpoint | None = None
    budget: int = 20
    epochs: int = 10
    device: str | None = None

    def __post_init__(self) -> None:
        for option, value, least in (("budget", self.budget, 10), ("relearn-epochs", self.epochs, 1)):
            check_at_least(f"--{option}", value, least)
        object.__setattr__(self, "settings", get_method(self.method).settings_from(self.settings))
