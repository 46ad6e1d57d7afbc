"""``kvw bench run``: everything a recipe asks for, each stage once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import safetensors.torch

from kvw.bench.asking import Question, ask, questions
from kvw.bench.methods import build_settings, get_method
from kvw.bench.planting import plant
from kvw.bench.recipe import BenchmarkPart, PlantPart, Recipe
from kvw.bench.record import MODELS, Manifest, ModelRecord, PlantingPart, RunFiles, TaskPart
from kvw.bench.scores import COMPUTED, HEADLINES, PAIRED, ItemScore
from kvw.data import Example
from kvw.data.benchmarks import BenchmarkData, Protocol, get_benchmark, two_folds
from kvw.edits.edit import Edit, load_edit, package_versions
from kvw.errors import UserError
from kvw.evaluation.metrics import OutcomeCounts
from kvw.measuring.fingerprint import digest
from kvw.models.loading import Checkpoint
from kvw.progress import Progress, Reporter
from kvw.runs.costs import Stopwatch
from kvw.runs.loaded import Loaded
from kvw.toy.copies import SOURCE, cached_copy


def run(recipe: Recipe, models: Mapping[str, Checkpoint], out: Path, reporter: Reporter) -> list[Path]:
    """Plant, ask vanilla and gold, make every edit, ask the edited models; what was done before is not done again.

    Args:
        recipe: What to do.
        models: What ``recipe.models_by_role`` names, as it was found.
        out: Run directory; with several settings it holds one for each. It grows while the run goes on, and the same
            recipe goes on where it stopped.
        reporter: Told of stages and progress.

    Returns:
        The run directory of each setting.

    Raises:
        UserError: ``out`` holds the run of another recipe, or something of the recipe cannot be used.
    """
    runs = recipe.runs
    folders = [out / setting if len(runs) > 1 else out for setting in runs]
    for one, folder in zip(runs.values(), folders, strict=True):
        _run(one, models, folder, out / MODELS, Stopwatch(reporter))
    return folders


def _run(recipe: Recipe, models: Mapping[str, Checkpoint], folder: Path, planted: Path, watch: Stopwatch) -> None:
    """One setting."""
    with watch.stage("reading the benchmark"):
        data = load_benchmark(recipe.benchmark)
        protocol = Protocol(shots=recipe.evaluation.shots, seed=recipe.benchmark.seed)
        asked = questions(data, protocol, recipe.evaluation)
    work = _Work(recipe, data, asked, RunFiles(folder), watch)
    work.begin(with_gold=models.keys() != {"vanilla"})
    part, plantings = recipe.made_from, {}
    if isinstance(part, PlantPart):
        made = plant(part, data, models["base"], planted, watch)
        plantings = {label: one.planting for label, one in made.items()}
        models = {label: one.checkpoint for label, one in made.items()}
    if "gold" in models and not work.finished("gold"):
        work.score(work.load("gold", models["gold"]), "gold", {}, plantings.get("gold"))
    todo: list[tuple[str, dict[str, Any]]] = [("vanilla", {})]
    todo += [(part.name, values) for part in recipe.method for values in part.settings]
    if not all(work.finished(label, values) for label, values in todo):
        loaded = work.load("vanilla", models["vanilla"])
        for label, values in todo:
            if not work.finished(label, values):
                work.score(loaded, label, values, plantings.get(label))


def load_benchmark(part: BenchmarkPart) -> BenchmarkData:
    """The data of a recipe with one setting; kvw's own copy is written first if there is none.

    Raises:
        UserError: The data cannot be loaded.
    """
    source: str | Path | None = cached_copy(part.name) if part.source == SOURCE else part.source or None
    (setting,) = part.setting
    return get_benchmark(part.name).load(source, setting or None, seed=part.seed, others=part.others or None)


class _Work:
    """One run, stage by stage."""

    def __init__(
        self, recipe: Recipe, data: BenchmarkData, asked: Sequence[Question], files: RunFiles, watch: Stopwatch
    ) -> None:
        self.recipe, self.data, self.asked, self.files, self.watch = recipe, data, asked, files, watch
        self.forget = training_examples(data, "forget", recipe.benchmark)
        self.retain = training_examples(data, "retain", recipe.benchmark)
        self.base = digest(recipe.benchmark.model_dump(), recipe.evaluation.model_dump(), package_versions())

    def begin(self, *, with_gold: bool) -> None:
        """Write the manifest, or check that what is there is of the same recipe."""
        labels: list[tuple[str, dict[str, Any]]] = [("vanilla", {})]
        labels += [("gold", {})] if with_gold else []
        labels += [(part.name, values) for part in self.recipe.method for values in part.settings]
        manifest = Manifest(
            title=self.recipe.title,
            recipe=self.recipe.model_dump(mode="json"),
            recipe_digest=digest(self.recipe.model_dump(mode="json")),
            benchmark=self.data.benchmark,
            setting=self.data.setting,
            protocol=Protocol(shots=self.recipe.evaluation.shots, seed=self.recipe.benchmark.seed).name,
            forget=len(self.forget),
            retain=len(self.retain),
            tasks=_tasks(self.asked),
            folds=_folds(self.data, self.recipe),
            unusable=len(self.data.unusable),
            not_computed=sorted({m for q in self.asked for m in q.task.metrics} - COMPUTED.keys() - PAIRED.keys()),
            requests=[self.identifier(label, values) for label, values in labels],
            versions=package_versions(),
        )
        before = self.files.manifest()
        if before is not None and before.recipe_digest != manifest.recipe_digest:
            raise UserError(
                f"{self.files.folder} holds the run of another recipe.", found=before.title, do="name another --out"
            )
        self.files.write_manifest(manifest)

    def identifier(self, label: str, values: dict[str, Any] | None = None) -> str:
        return f"{label}-{digest(self.base, label, values or {})[:12]}"

    def finished(self, label: str, values: dict[str, Any] | None = None) -> bool:
        return self.files.record(self.identifier(label, values)) is not None

    def load(self, label: str, checkpoint: Checkpoint) -> Loaded:
        with self.watch.stage(f"loading {label}"):
            return Loaded.load(checkpoint)

    def score(self, loaded: Loaded, label: str, values: dict[str, Any], planting: PlantingPart | None) -> None:
        """Make the edit, if it is a method's, and ask the model."""
        identifier, before = self.identifier(label, values), dict(self.watch.seconds)
        described = label + "".join(f" {name}={value}" for name, value in values.items())
        edit = None if label in ("vanilla", "gold") else self.make_edit(loaded, label, values, described)
        scores = self.files.items(identifier)
        if scores is None:
            with (
                self.watch.stage(f"asking {described}") as progress,
                edit.attach(loaded.model) if edit else nullcontext(),
            ):
                scores = self.ask(loaded, identifier, progress)
        outcomes: dict[str, list[Any]] = {}
        for score in scores:
            outcomes.setdefault(f"{score.split}/{score.task}", []).append(score.outcome)
        record = ModelRecord(
            identifier=identifier,
            label=label,
            settings=values,
            model=str(loaded.checkpoint),
            model_fingerprint=loaded.fingerprint,
            edit_digest=_content(edit) if edit else "",
            planting=planting,
            outcomes={place: vars(OutcomeCounts.of(found)) for place, found in outcomes.items()},
            seconds={name: spent for name, spent in self.watch.seconds.items() if name not in before},
        )
        self.files.write_record(record)

    def ask(self, loaded: Loaded, identifier: str, progress: Progress) -> list[ItemScore]:
        """Ask the model every item; from then on its items are there, and its journal is not."""
        likelihoods = self.recipe.evaluation.likelihoods
        with self.files.journal(identifier) as journal:
            scores = ask(
                loaded.model, loaded.processor, self.asked, journal, likelihoods=likelihoods, progress=progress
            )
        self.files.write_items(identifier, scores)
        journal.discard()
        return scores

    def make_edit(self, loaded: Loaded, method: str, values: dict[str, Any], described: str) -> Edit:
        path = self.files.edit_file(self.identifier(method, values))
        if path.is_file():
            return load_edit(path)
        module, function = get_method(method).home
        with self.watch.stage(f"unlearning with {described}") as progress:
            make = getattr(import_module(module), function)
            edit: Edit = make(loaded, self.forget, self.retain, build_settings(method, values), progress)
        edit.save(path)
        return edit


def training_examples(data: BenchmarkData, name: str, part: BenchmarkPart) -> list[Example]:
    """What the methods get.

    Args:
        data: The benchmark.
        name: ``forget`` or ``retain``.
        part: Of the recipe.

    Raises:
        UserError: There is nothing.
    """
    items = [item for item in data.training.get(name, ()) if item.images or part.unlearn_on == "everything"]
    if not items:
        raise UserError(f"{data.benchmark} gives the methods no {name} examples.", found=", ".join(data.training))
    return [item.example() for item in items]


def _tasks(asked: Sequence[Question]) -> list[TaskPart]:
    found: dict[tuple[str, str], list[Question]] = {}
    for question in asked:
        found.setdefault((question.split, question.task_name), []).append(question)
    return [
        TaskPart(
            split=split,
            task=name,
            modality=several[0].task.modality,
            metric=next((COMPUTED[m] for m in several[0].task.metrics if m in HEADLINES), "correct"),
            items=len(several),
            named=list(several[0].task.metrics),
        )
        for (split, name), several in found.items()
    ]


def _folds(data: BenchmarkData, recipe: Recipe) -> dict[str, int]:
    halves, _ = two_folds(data, recipe.benchmark.seed)
    return {
        item.subject: number
        for number, half in enumerate(halves)
        for tasks in half.splits.values()
        for task in tasks.values()
        for item in task.items
    }


def _content(edit: Edit) -> str:
    return hashlib.sha256(safetensors.torch.save(edit.tensors())).hexdigest()
