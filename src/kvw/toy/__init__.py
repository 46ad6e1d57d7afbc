"""A fictitious world of people and a tiny model of the LLaVA architecture that knows them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from kvw.errors import UserError
from kvw.toy.world import SPLITS, World, write_world

__all__ = ["SPLITS", "World", "checkpoint", "write_world"]


def checkpoint(name: Literal["vanilla", "gold"] = "vanilla") -> Path:
    """The folder of a shipped checkpoint, loadable with plain transformers.

    Args:
        name: ``vanilla`` was trained on everybody in ``World()``, ``gold`` without the people to forget.

    Raises:
        UserError: There is no such checkpoint.
    """
    folder = Path(__file__).parent / "checkpoints" / name
    if not (folder / "model.safetensors").is_file():
        raise UserError(
            "There is no such toy checkpoint.",
            found=str(folder),
            do="ask for vanilla or gold, or make one with: python -m kvw.toy.train --out DIR",
        )
    return folder
