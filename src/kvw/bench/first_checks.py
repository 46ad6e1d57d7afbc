"""What a benchmark run finds out before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kvw.bench.recipe import Recipe
from kvw.bench.record import RunFiles
from kvw.errors import UserError
from kvw.measuring.fingerprint import digest
from kvw.models.checkpoint import Checkpoint


def run_places(recipe: Recipe, out: Path) -> dict[str, Path]:
    """The directory of each setting of a recipe: ``out`` itself, or of several settings one for each in it."""
    return {setting: out / setting if len(recipe.runs) > 1 else out for setting in recipe.runs}


def find_models(recipe: Recipe, find: Callable[[str], Checkpoint]) -> dict[str, Checkpoint]:
    """The models of a recipe with one setting, by their role.

    Raises:
        UserError: One of them cannot be found; if the recipe says how to make them, so does the message.
    """
    try:
        return {role: find(name) for role, name in recipe.models_by_role.items()}
    except UserError as error:
        if recipe.models is None or not recipe.models.made_by:
            raise
        raise UserError(error.what, found=error.found, do=f"make the models with: {recipe.models.made_by}") from error


def recipe_digest(recipe: Recipe) -> str:
    """SHA-256 over what a recipe asks for."""
    return digest(recipe.model_dump(mode="json"))


def check_same_recipe(folder: Path, recipe: Recipe) -> None:
    """Refuse a directory with the run of another recipe.

    Raises:
        UserError: It holds one, or a run of another version.
    """
    before = RunFiles(folder).manifest()
    if before is not None and before.recipe_digest != recipe_digest(recipe):
        raise UserError(f"{folder} holds the run of another recipe.", found=before.title, do="name another --out")
