"""``kvw bench run``: everything a recipe asks for, each stage once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from kvw.bench.asking import Question, ask, questions
from kvw.bench.changes import Change, EditChange, TrainedChange
from kvw.bench.methods import TRAINED, build_settings, get_method
from kvw.bench.recipe import Recipe
from kvw.bench.record import Manifest, ModelRecord, RunFiles, TaskPart
from kvw.bench.scores import COMPUTED, HEADLINES
from kvw.bench.training import alternatives, train_and_put_back
from kvw.data import Example
from kvw.data.benchmarks import BenchmarkData, Protocol, get_benchmark, two_folds
from kvw.edits.edit import load_edit, package_versions
from kvw.errors import UserError
from kvw.evaluation.metrics import OutcomeCounts
from kvw.measuring.fingerprint import digest
from kvw.models.loading import Checkpoint
from kvw.progress import Reporter
from kvw.runs.costs import Stopwatch
from kvw.runs.loaded import Loaded


@dataclass(frozen=True)
class Models:
    """Where the models of a recipe were found."""

    vanilla: Checkpoint
    gold: Checkpoint | None


def run(recipe: Recipe, models: Models, out: Path, reporter: Reporter) -> Manifest:
    """Ask vanilla and gold, make every edit, ask the edited models; what was done before is not done again.

    Args:
        recipe: What to do.
        models: Where its models are.
        out: Run directory. It grows while the run goes on, and the same recipe goes on where it stopped.
        reporter: Told of stages and progress.

    Raises:
        UserError: ``out`` holds the run of another recipe, or something of the recipe cannot be used.
    """
    watch = Stopwatch(reporter)
    with watch.stage("reading the benchmark"):
        data = _load(recipe)
        protocol = Protocol(shots=recipe.evaluation.shots, seed=recipe.benchmark.seed)
        asked = questions(data, protocol, recipe.evaluation)
    work = _Work(recipe, data, asked, RunFiles(out), watch)
    manifest = work.begin(models)
    if models.gold is not None and not work.finished("gold"):
        work.score_model("gold", models.gold)
    todo: list[tuple[str, dict[str, Any]]] = [("vanilla", {})]
    todo += [(part.name, values) for part in recipe.method for values in part.settings]
    if not all(work.finished(label, values) for label, values in todo):
        loaded = work.load("vanilla", models.vanilla)
        for label, values in todo:
            if not work.finished(label, values):
                work.score(loaded, label, values)
    return manifest


def _load(recipe: Recipe) -> BenchmarkData:
    part = recipe.benchmark
    return get_benchmark(part.name).load(
        part.source or None, part.setting or None, seed=part.seed, others=part.others or None
    )


class _Work:
    """One run, stage by stage."""

    def __init__(
        self, recipe: Recipe, data: BenchmarkData, asked: Sequence[Question], files: RunFiles, watch: Stopwatch
    ) -> None:
        self.recipe, self.data, self.asked, self.files, self.watch = recipe, data, asked, files, watch
        self.forget = _training(data, "forget")
        self.retain = _training(data, "retain")
        self.base = digest(recipe.benchmark.model_dump(), recipe.evaluation.model_dump(), package_versions())

    def begin(self, models: Models) -> Manifest:
        """Write the manifest, or check that what is there is of the same recipe."""
        labels: list[tuple[str, dict[str, Any]]] = [("vanilla", {})]
        labels += [("gold", {})] if models.gold else []
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
            not_computed=sorted({m for q in self.asked for m in q.task.metrics} - COMPUTED.keys()),
            requests=[self.identifier(label, values) for label, values in labels],
            versions=package_versions(),
        )
        before = self.files.manifest()
        if before is not None and before.recipe_digest != manifest.recipe_digest:
            raise UserError(
                f"{self.files.folder} holds the run of another recipe.", found=before.title, do="name another --out"
            )
        self.files.write_manifest(manifest)
        return manifest

    def identifier(self, label: str, values: dict[str, Any] | None = None) -> str:
        return f"{label}-{digest(self.base, label, values or {})[:12]}"

    def finished(self, label: str, values: dict[str, Any] | None = None) -> bool:
        return self.files.record(self.identifier(label, values)) is not None

    def load(self, label: str, checkpoint: Checkpoint) -> Loaded:
        with self.watch.stage(f"loading {label}"):
            return Loaded.load(checkpoint)

    def score_model(self, label: str, checkpoint: Checkpoint) -> None:
        self.score(self.load(label, checkpoint), label, {})

    def score(self, loaded: Loaded, label: str, values: dict[str, Any]) -> None:
        """Unlearn, if the label is a method's, and ask the model."""
        identifier, before = self.identifier(label, values), dict(self.watch.seconds)
        described = label + "".join(f" {name}={value}" for name, value in values.items())
        change = None if label in ("vanilla", "gold") else self.make_change(loaded, label, values, described)
        journal = self.files.journal(identifier)
        with self.watch.stage(f"asking {described}") as progress:
            put_on = change.attach(loaded.model) if change else None
            try:
                scores = ask(
                    loaded.model,
                    loaded.processor,
                    self.asked,
                    journal,
                    likelihoods=self.recipe.evaluation.likelihoods,
                    progress=progress,
                )
            finally:
                if put_on:
                    put_on.detach()
        outcomes: dict[str, list[Any]] = {}
        for score in scores:
            outcomes.setdefault(f"{score.split}/{score.task}", []).append(score.outcome)
        record = ModelRecord(
            identifier=identifier,
            label=label,
            settings=values,
            model=str(loaded.checkpoint),
            model_fingerprint=loaded.fingerprint,
            edit_digest=change.digest if change else "",
            outcomes={place: vars(OutcomeCounts.of(found)) for place, found in outcomes.items()},
            seconds={name: spent for name, spent in self.watch.seconds.items() if name not in before},
        )
        self.files.write_record(record)

    def make_change(self, loaded: Loaded, label: str, values: dict[str, Any], described: str) -> Change:
        """What a method does with these settings; made once and kept."""
        identifier, settings = self.identifier(label, values), build_settings(label, values)
        path, folder = self.files.edit_file(identifier), self.files.trained_folder(identifier)
        if not (folder.is_dir() or path.is_file()):
            with self.watch.stage(f"unlearning with {described}") as progress:
                if label in TRAINED:
                    others, state = alternatives(self.data), self.files.state_file(identifier)
                    train_and_put_back(loaded, self.forget, self.retain, settings, others, folder, state, progress)
                else:
                    module, function = get_method(label).home
                    make = getattr(import_module(module), function)
                    make(loaded, self.forget, self.retain, settings, progress).save(path)
        return TrainedChange(folder) if label in TRAINED else EditChange(load_edit(path))


def _training(data: BenchmarkData, part: str) -> list[Example]:
    items = data.training.get(part, ())
    if not items:
        raise UserError(f"{data.benchmark} gives the methods no {part} examples.", found=", ".join(data.training))
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
