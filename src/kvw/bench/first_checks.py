"""What a benchmark run finds out before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from kvw.bench.folders import MANIFEST
from kvw.bench.recipe import Recipe
from kvw.bench.record import RunFiles
from kvw.errors import UserError
from kvw.measuring.fingerprint import digest
from kvw.models.checkpoint import Checkpoint


def run_places(recipe: Recipe, out: Path) -> dict[str, Path]:
    """The directory of each run of a recipe by its name in :attr:`kvw.bench.recipe.Recipe.runs`: ``out`` or one in it.

    Raises:
        UserError: ``out`` is the run of a recipe with one setting, and this one has several runs.
    """
    if "" not in recipe.runs and (out / MANIFEST).is_file():
        raise UserError(
            f"{out} holds a single run, and this recipe makes several.",
            found=f"{len(recipe.runs)} settings or seeds",
            do="name another --out",
        )
    return {name: out / name if name else out for name in recipe.runs}


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
    """Refuse a directory with the run of another recipe; one that only asks for more is the same.

    What was asked before has to be asked for still, so that no result of the run is lost from its tables: methods and
    values of settings can be added, and all else stays.

    Raises:
        UserError: It holds one, or a run of another version.
    """
    before = RunFiles(folder).manifest()
    if before is None or before.recipe_digest == recipe_digest(recipe):
        return
    try:
        earlier = Recipe.model_validate(before.recipe)
    except ValidationError as error:
        found = str(error).splitlines()[0]
        raise UserError(f"{folder} holds the run of another version.", found=found, do="name another --out") from error
    parts = Recipe.model_fields.keys() - {"title", "method"}
    changed = sorted(name for name in parts if getattr(earlier, name) != getattr(recipe, name))
    asked = _asked(recipe)
    left_out = [described for described in _asked(earlier) if described not in asked]
    if changed or left_out:
        found = f"another {' and '.join(changed)}" if changed else f"without {left_out[0]}, which was asked for there"
        raise UserError(
            f"{folder} holds the run of another recipe.",
            found=found,
            do="name another --out; in the same one methods and values can be added and nothing else be changed",
        )


def _asked(recipe: Recipe) -> list[str]:
    """Every method with each of its settings, in words."""
    return [
        " ".join([part.called, *(f"{name}={value}" for name, value in sorted(values.items()))])
        for part in recipe.method
        for values in part.settings
    ]
