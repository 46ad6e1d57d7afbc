"""What a benchmark run is asked to do, as a TOML file; reading one loads nothing heavy."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvw.bench.methods import combinations
from kvw.data.benchmarks import BENCHMARKS, get_benchmark
from kvw.data.benchmarks.items import known
from kvw.errors import UserError


class Part(BaseModel):
    """A table of a recipe; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class BenchmarkPart(Part):
    """What is forgotten and asked."""

    name: str
    """See ``kvw bench ls``."""
    setting: str = ""
    """One of the benchmark's settings; the first if empty."""
    source: str = ""
    """A hub id or a folder with a copy; the authors' hub id if empty."""
    others: dict[str, str] = Field(default_factory=dict)
    """Further sources, by the names that the benchmark has for them."""
    seed: int = 0
    """For the choices that the data leave open, and for the lot that divides the folds."""


class ModelsPart(Part):
    """The models, each a folder, a hub id, or one of the shipped toy models."""

    vanilla: str
    """Knows what is to be forgotten."""
    gold: str = ""
    """Never knew it; without it no distance to the gold model is reported."""


class EvaluationPart(Part):
    """How models are asked."""

    tasks: tuple[str, ...] = ()
    """``split/task``; all that the benchmark has if empty."""
    at_most: int = Field(default=0, ge=0)
    """Items of each task, the first by lot; 0 for all."""
    shots: int = Field(default=0, ge=0)
    """Exemplars before each question, never from the forgotten."""
    max_new_tokens: int = Field(default=0, ge=0)
    """Longest reply in tokens; 0 for what each task's publication has."""
    likelihoods: bool = True
    """Score the reference answers, their paraphrases, wrong answers and options by probability, too."""


class ChoicePart(Part):
    """How settings are chosen, on the validation fold alone."""

    forget: str = "forget"
    """Split whose mean score is to be small."""
    retain: str = "retain"
    """Split whose mean score is to stay."""
    keep: float = Field(default=0.9, ge=0, le=1)
    """Of the settings that keep this share of vanilla's retain score the one that forgets most is chosen; if none
    does, the one that keeps most."""
    folds: Literal["both", "first"] = "both"
    """Choose on the first half and report on the second, and (both) the other way round."""


class MethodPart(BaseModel):
    """A method and the settings to try."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Every combination of settings."""
        return combinations(self.name, self.model_extra or {})


class Recipe(Part):
    """A benchmark run."""

    title: str
    benchmark: BenchmarkPart
    models: ModelsPart
    evaluation: EvaluationPart = EvaluationPart()
    choice: ChoicePart = ChoicePart()
    method: tuple[MethodPart, ...] = ()


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe; a folder beside it named in ``source`` or ``models`` is found from where the file is.

    Raises:
        UserError: There is no such file, it is no TOML, or something in it is unknown; the message names the closest.
    """
    if not path.is_file():
        raise UserError(f"There is no recipe {path}.", do="see recipes/ for examples")
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a TOML file.", found=str(error)) from error
    check_keys(values, Recipe, path.name)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path.name}: {place} cannot be used.", found=first["msg"]) from error
    benchmark = get_benchmark(known(recipe.benchmark.name, BENCHMARKS, "benchmark", path.name))
    if recipe.benchmark.setting:
        known(recipe.benchmark.setting, dict.fromkeys(benchmark.settings), "setting", benchmark.title)
    for part in recipe.method:
        combinations(part.name, part.model_extra or {})
    return recipe


def check_keys(values: dict[str, Any], part: type[BaseModel], where: str) -> None:
    """Refuse keys that a part does not have, with the closest one that it has."""
    for key, value in values.items():
        field = part.model_fields[known(key, part.model_fields, "key", where)]
        kind = field.annotation
        if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, Part):
            check_keys(value, kind, f"{where} [{key}]")
