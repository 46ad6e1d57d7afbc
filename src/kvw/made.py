"""Models that kvw makes on this machine, once, and keeps in the cache."""

from __future__ import annotations

from pathlib import Path

from kvw.cache import cache_directory
from kvw.errors import UserError

PEOPLE = ("people:planted", "people:gold-choosing", "people:gold-reporting")
"""A pretrained model that was taught people who do not exist, and two that have never seen some of them."""
PHOTOS = ("photos:planted", "photos:gold-choosing", "photos:gold-reporting")
"""The same behind a vision tower: people who are known by their photos, too."""
COMMAND = "python -m kvw.proving.planting"
"""Makes all of them, or those that are named behind it."""


def made_folder(name: str) -> Path:
    """Where a model of this name is kept, made or not."""
    return cache_directory() / "models" / name.replace(":", "-")


def is_made(name: str) -> bool:
    """Whether the model is there."""
    return (made_folder(name) / "config.json").is_file()


def made_checkpoint(name: str, how: str) -> Path:
    """The folder of a model.

    Args:
        name: Name of the model.
        how: The command that makes it, for the message.

    Raises:
        UserError: It has not been made on this machine.
    """
    if not is_made(name):
        raise UserError(f"{name} is not on this machine yet.", do=f"run once: {how}")
    return made_folder(name)
