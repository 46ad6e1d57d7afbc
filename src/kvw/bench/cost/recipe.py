"""What a comparison of costs is asked to do, as a TOML file; reading one loads nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kvw.bench.reading import read_part
from kvw.errors import UserError
from kvw.known import known
from kvw.methods.registry import get_method
from kvw.models.checkpoint import find_checkpoint
from kvw.strict import Strict

FORWARD = "forward"
"""The row that every other is compared with: one plain forward pass over all forget and retain examples."""

SHAPES = Path(__file__).parent / "shapes"
TOY_PREFIX = "toy:"


def shipped_shapes() -> list[str]:
    """The shapes that come with kvw: what the published configurations say about sizes."""
    return sorted(path.stem for path in SHAPES.glob("*.json"))


def check_config(name: str) -> None:
    """Find out whether there is a configuration.

    Args:
        name: A shipped shape, a shipped toy model, a folder or a hub id.

    Raises:
        UserError: There is none; the message names the closest shape.
    """
    if name.startswith(TOY_PREFIX):
        return
    if "/" in name or Path(name).is_dir():
        find_checkpoint(name)
    else:
        known(name, dict.fromkeys(shipped_shapes()), "shape")


class ModelPart(Strict):
    """The model; its weights are drawn at random, since costs do not depend on values."""

    config: str
    """A shipped shape, or where there is a configuration: a folder, a hub id, or one of the shipped toy models."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = ""
    """The accelerator if there is one, else the CPU, if empty."""


class DataPart(Strict):
    """Made-up examples, all of one length, each with an image."""

    forget: int = Field(default=200, ge=1)
    retain: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=4, ge=1)
    """Examples per forward, for every method that takes several."""
    question: int = Field(default=24, ge=1)
    """Text tokens before the answer."""
    answer: int = Field(default=16, ge=1)
    """Answer tokens."""
    image: tuple[int, int] = (640, 480)
    """Width and height; decides how many tokens an image has where the processor goes by pixels."""
    questions_per_image: int = Field(default=1, ge=1)


class CostMethod(BaseModel):
    """A method and its settings; a list makes a row for each of its values."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    label: str = ""
    """What the tables call it; its name and settings if empty."""

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Every combination of settings."""
        return get_method(self.name).combinations(self.model_extra or {})


class CostRecipe(Strict):
    """A comparison of costs."""

    title: str
    model: ModelPart
    data: DataPart = DataPart()
    repeats: int = Field(default=1, ge=1)
    """Times that each method is timed; the median counts."""
    method: tuple[CostMethod, ...]

    def on(self, device: str | None) -> CostRecipe:
        """The same on another device; None for the recipe's own."""
        return self.model_copy(update={"model": self.model.model_copy(update={"device": device})}) if device else self

    @property
    def rows(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Label, method and settings of every row, the plain forward pass first."""
        listed: list[tuple[str, str, dict[str, Any]]] = [("plain forward", FORWARD, {})]
        for part in self.method:
            several, method = part.settings, get_method(part.name).name
            for values in several:
                described = " ".join(f"{key}={value}" for key, value in values.items())
                label = part.label if part.label and len(several) == 1 else f"{part.label or method} {described}"
                listed.append((label.strip(), part.name, values))
        return listed


def read_cost_recipe(path: Path) -> CostRecipe:
    """Read and check a recipe for ``kvw bench cost``.

    Raises:
        UserError: There is no such file, it is no TOML, or something in it is unknown; the message names the closest.
    """
    recipe = read_part(path, CostRecipe, "recipes/cost/")
    for part in recipe.method:
        get_method(part.name)  # names the closest to a method that there is not
    labels = [label for label, _, _ in recipe.rows]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise UserError("Two rows of the table would have the same label.", found=twice[0], do="give them labels")
    return recipe
