"""The recipes that ship with kvw, by name; importing this loads nothing heavy."""

from __future__ import annotations

from pathlib import Path

from kvw.bench.reading import read_toml
from kvw.known import known

PARTS = "parts"
"""Folder of what several recipes include; no recipes."""


def recipes_folder() -> Path:
    """Where they are: of a source tree, or the copy in an installed package."""
    here = Path(__file__).resolve().parents
    return next(place / "recipes" for place in (here[3], here[1]) if (place / "recipes" / "toy.toml").is_file())


def shipped_recipes() -> dict[str, Path]:
    """The file of each recipe, by its name: ``toy``, or ``cost/toy`` for those of ``kvw bench cost``."""
    folder = recipes_folder()
    files = {path: path.relative_to(folder) for path in sorted(folder.rglob("*.toml"))}
    return {place.with_suffix("").as_posix(): path for path, place in files.items() if place.parts[0] != PARTS}


def title_of(path: Path) -> str:
    """The title of a recipe that ships."""
    return str(read_toml(path)["title"])


def find_recipe(name: Path) -> Path:
    """A recipe by its path, or by the name of one that ships.

    Args:
        name: What the user typed. What ends in ``.toml`` or is a file is a path.

    Raises:
        UserError: It is no path, and no recipe of this name ships; the message names the closest.
    """
    if name.suffix == ".toml" or name.is_file():
        return name
    shipped = shipped_recipes()
    return shipped[known(name.as_posix(), shipped, "recipe")]
