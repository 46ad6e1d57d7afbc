"""A fictitious world of people and a tiny model of the LLaVA architecture that knows them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from kvw.models.named import toy_folder
from kvw.toy.world import SPLITS, World, write_world

__all__ = ["SPLITS", "World", "checkpoint", "write_world"]


def checkpoint(name: Literal["vanilla", "gold"] = "vanilla") -> Path:
    """The folder of a shipped checkpoint, loadable with plain transformers.

    Args:
        name: ``vanilla`` was trained on everybody in ``World()``, ``gold`` without the people to forget.

    Raises:
        UserError: There is no such checkpoint.
    """
    return toy_folder(name)
