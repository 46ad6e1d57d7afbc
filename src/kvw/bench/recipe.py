"""What a benchmark run is asked to do, as a TOML file; reading one loads nothing heavy."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from kvw.bench.benchmarks import BENCHMARKS, get_benchmark
from kvw.bench.reading import read_part
from kvw.errors import UserError
from kvw.known import known
from kvw.methods.reading import read_settings
from kvw.methods.registry import get_method
from kvw.strict import Strict
from kvw.toy.copies import COPIES, SOURCE
from kvw.training.settings import TrainingSettings


class BenchmarkPart(Strict):
    """What is forgotten and asked."""

    name: str
    """See ``kvw bench ls``."""
    setting: tuple[str, ...] = ("",)
    """One of the benchmark's settings, or several, each a run of its own; the first of them if empty."""
    source: str = ""
    """A hub id or a folder with a copy; the authors' hub id if empty. ``toy`` is a small copy of kvw's own."""
    others: dict[str, str] = Field(default_factory=dict)
    """Further sources, by the names that the benchmark has for them."""
    seed: int | tuple[int, ...] = 0
    """Seed of the choices that the data leave open, and of the division into folds. Several are a run each, in which
    methods that draw at random take it too, unless the recipe gives them a ``seed``."""
    unlearn_on: Literal["everything", "images"] = "everything"
    """What the methods get of the training examples: all of them, or those with an image."""

    @field_validator("setting", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("seed")
    @classmethod
    def _each_once(cls, value: int | tuple[int, ...]) -> int | tuple[int, ...]:
        if isinstance(value, tuple) and not 0 < len(set(value)) == len(value):
            raise ValueError("seeds are listed once each, and at least one")
        return value

    @property
    def only_seed(self) -> int:
        """The seed of a recipe of one run."""
        (seed,) = self.seed if isinstance(self.seed, tuple) else (self.seed,)
        return seed


class ModelsPart(Strict):
    """The models, each a folder, a hub id, or one of the shipped toy models.

    ``{setting}`` and ``{seed}`` stand for those of the benchmark.
    """

    vanilla: str
    """Knows what is to be forgotten."""
    gold: str = ""
    """Never knew it; without it no distance to the gold model is reported."""
    made_by: str = Field(default="", exclude=True)
    """The command that makes them, for whoever has not made them yet; no part of what is run."""


class PlantPart(BaseModel):
    """How knowledge is planted: vanilla learns every training example of the benchmark, gold all but the forgotten.

    All other keys are fields of :class:`kvw.training.settings.TrainingSettings`; ``lora`` is a table with fields of
    :class:`kvw.training.settings.LoraSettings`, and without it all weights of ``parts`` are trained.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    base: str
    """The model before planting: a folder, a hub id, or one of the shipped toy models."""

    @property
    def training(self) -> TrainingSettings:
        """The checked settings.

        Raises:
            UserError: There is no such setting, or a value makes no sense.
        """
        return read_settings(TrainingSettings, self.model_extra or {}, "[plant]")


class EvaluationPart(Strict):
    """How models are asked."""

    tasks: tuple[str, ...] = ()
    """``split/task``; all that the benchmark has if empty."""
    at_most: int = Field(default=0, ge=0)
    """Items of each task, drawn at random; 0 for all."""
    shots: int = Field(default=0, ge=0)
    """Exemplars before each question, never from the forgotten."""
    max_new_tokens: int = Field(default=0, ge=0)
    """Longest reply in tokens; 0 for what each task's publication has."""
    likelihoods: bool = True
    """Score the reference answers, their paraphrases, wrong answers and options by probability, too."""


class ChoicePart(Strict):
    """How settings are chosen, only on the validation fold."""

    forget: str = "forget"
    """Split whose mean score is to be small."""
    retain: str = "retain"
    """Split whose mean score is to stay."""
    tasks: tuple[str, ...] = ()
    """Tasks of these two splits that settings are chosen by; all if empty. Settings that are not chosen are asked
    nothing else."""
    keep: float = Field(default=0.9, ge=0, le=1)
    """The share of vanilla's retain score to keep. Of the settings that keep it, the one that forgets most is chosen;
    if none does, the one that keeps most."""
    folds: Literal["both", "first"] = "both"
    """Choose on the first half and report on the second, and (both) the other way round."""


class MethodPart(BaseModel):
    """A method and the settings to try."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    label: str = Field(default="", pattern=r"^[\w.-]*$")
    """What tables and files call it, so that a method can stand beside a variant of itself; its name if empty."""

    @property
    def called(self) -> str:
        """Its label, or the method's name."""
        return self.label or get_method(self.name).name

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Every combination of settings."""
        return get_method(self.name).combinations(self.model_extra or {})

    def seeded(self, seed: int) -> MethodPart:
        """The same with a seed, if the method takes one and has none."""
        given = self.model_extra or {}
        takes = any(field.name == "seed" for field in fields(get_method(self.name).settings))
        return MethodPart(**{**dict(self), **given, "seed": seed}) if takes and "seed" not in given else self


class Recipe(Strict):
    """A benchmark run."""

    title: str
    benchmark: BenchmarkPart
    models: ModelsPart | None = None
    """Models that know already; or else ``plant``."""
    plant: PlantPart | None = None
    """How to make the models."""
    evaluation: EvaluationPart = EvaluationPart()
    choice: ChoicePart = ChoicePart()
    method: tuple[MethodPart, ...] = ()

    @property
    def made_from(self) -> ModelsPart | PlantPart:
        """The models that know already, or how to plant.

        Raises:
            UserError: There is neither or both.
        """
        if self.models is not None and self.plant is None:
            return self.models
        if self.plant is not None and self.models is None:
            return self.plant
        raise UserError(
            "A recipe needs either [models] or [plant].",
            found="neither" if self.models is None else "both",
            do="name models that know already in [models], or say in [plant] how to make them",
        )

    @property
    def models_by_role(self) -> dict[str, str]:
        """What must be found before a run: ``vanilla`` and, if there is one, ``gold``; or ``base`` to plant in."""
        part = self.made_from
        if isinstance(part, PlantPart):
            return {"base": part.base}
        return {"vanilla": part.vanilla, **({"gold": part.gold} if part.gold else {})}

    def with_seed(self, seed: int) -> Recipe:
        """The same recipe with another seed of the benchmark."""
        return self.model_copy(update={"benchmark": self.benchmark.model_copy(update={"seed": seed})})

    @property
    def runs(self) -> dict[str, Recipe]:
        """One recipe for each setting and seed, by the folder that it gets; of a single one that is the run's own.

        Several settings have a folder each, and a list of seeds has ``seed-0`` and so on, inside it if there are both.
        """
        settings, seed = self.benchmark.setting, self.benchmark.seed
        runs = {}
        for setting in settings:
            outer = [setting] if len(settings) > 1 else []
            for one in seed if isinstance(seed, tuple) else (seed,):
                inner = [f"seed-{one}"] if isinstance(seed, tuple) else []
                runs["/".join([*outer, *inner])] = self._alone(setting, one)
        return runs

    def _alone(self, setting: str, seed: int) -> Recipe:
        models = self.models
        if models is not None:
            names = {key: value.replace("{setting}", setting) for key, value in dict(models).items()}
            models = ModelsPart(**{key: value.replace("{seed}", str(seed)) for key, value in names.items()})
        benchmark = self.benchmark.model_copy(update={"setting": (setting,), "seed": seed})
        several = isinstance(self.benchmark.seed, tuple)
        method = tuple(part.seeded(seed) if several else part for part in self.method)
        return self.model_copy(update={"benchmark": benchmark, "models": models, "method": method})


def read_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Folders in it are as seen from where the program runs.

    Raises:
        UserError: There is no such file, it is no TOML, or something in it is unknown; the message names the closest.
    """
    recipe = read_part(path, Recipe, "recipes/")
    _check_benchmark(recipe.benchmark, path.name)
    if isinstance(recipe.made_from, PlantPart):
        _ = recipe.made_from.training
    methods = {"vanilla": "a model", "gold": "a model"}
    for part in recipe.method:
        get_method(part.name).combinations(part.model_extra or {})
        if methods.setdefault(part.called, part.name) != part.name:
            raise UserError(
                f"{path.name}: two things are called '{part.called}'.",
                found=f"{part.name} and {methods[part.called]}",
                do="give the method another label",
            )
    return recipe


def _check_benchmark(part: BenchmarkPart, where: str) -> None:
    benchmark = get_benchmark(known(part.name, BENCHMARKS, "benchmark", where))
    if not part.setting or len(set(part.setting)) < len(part.setting):
        raise UserError(
            f"{where}: benchmark.setting must name each setting once.",
            found=", ".join(part.setting) or "none",
            do="leave repeated and empty ones out",
        )
    for setting in filter(None, part.setting):
        known(setting, dict.fromkeys(benchmark.settings), "setting", benchmark.title)
    if part.source == SOURCE:
        known(part.name, COPIES, "toy copy", where)
