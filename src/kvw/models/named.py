"""Models that have names of their own: the toys, which kvw brings, and those made of a small pretrained one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from kvw import smollm2
from kvw.errors import UserError
from kvw.made import COMMAND, PEOPLE, PHOTOS, made_checkpoint

TOYS = Path(__file__).parents[1] / "toy" / "checkpoints"


def toy_folder(name: str) -> Path:
    """The folder of a shipped toy checkpoint, loadable with plain transformers.

    Raises:
        UserError: There is no such checkpoint.
    """
    folder = TOYS / name
    if not (folder / "model.safetensors").is_file():
        raise UserError(
            "There is no such toy checkpoint.",
            found=name,
            do="ask for vanilla or gold, or make one with: python -m kvw.toy.train --out DIR",
        )
    return folder


NAMED: dict[str, Callable[[], Path]] = {
    "toy:vanilla": lambda: toy_folder("vanilla"),
    "toy:gold": lambda: toy_folder("gold"),
    smollm2.NAME: smollm2.checkpoint,
    **{name: partial(made_checkpoint, name, f"{COMMAND} {name}") for name in (*PEOPLE, *PHOTOS)},
}
"""The folder of each model by its name. Hub ids hold no colon."""


def named_folder(model: str) -> Path | None:
    """The folder of a model that has a name of its own; None for folders and hub ids.

    Raises:
        UserError: There is no model of this name, or it has not been made on this machine yet.
    """
    if model in NAMED:
        return NAMED[model]()
    families = {name.partition(":")[0] for name in NAMED}
    if model.partition(":")[0] in families and ":" in model:
        raise UserError(f"There is no model '{model}'.", do=f"use one of: {', '.join(NAMED)}")
    return None
