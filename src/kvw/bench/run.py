"""``kvw bench run``: everything a recipe asks for, each stage once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kvw.bench.asking import Question, ask, questions
from kvw.bench.benchmarks import get_benchmark
from kvw.bench.changes import Change, EditChange, TrainedChange
from kvw.bench.first_checks import check_same_recipe, find_models, recipe_digest, run_places
from kvw.bench.planting import plant
from kvw.bench.recipe import BenchmarkPart, ChoicePart, PlantPart, Recipe
from kvw.bench.record import MODELS, Manifest, ModelRecord, PlantingPart, RunFiles, TaskPart
from kvw.bench.results import choose
from kvw.bench.scores import COMPUTED, HEADLINES, PAIRED, ItemScore, alternatives
from kvw.bench.training import first_wrong_answers, train_and_put_back
from kvw.data import Example
from kvw.data.benchmarks import BenchmarkData, Item, Protocol, two_folds
from kvw.edits.edit import package_versions, read_edit, write_edit
from kvw.errors import UserError
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.metrics import OutcomeCounts
from kvw.known import known
from kvw.measuring.fingerprint import digest, examples_digest, weights_digest
from kvw.methods.registry import get_method
from kvw.methods.trained import Trained
from kvw.models.loading import Checkpoint
from kvw.output import growing_directory
from kvw.progress import Progress, Reporter
from kvw.runs.costs import Stopwatch
from kvw.runs.unlearning import unlearn
from kvw.toy.copies import SOURCE, cached_copy


def run(
    recipe: Recipe,
    find: Callable[[str], Checkpoint],
    out: Path,
    reporter: Reporter,
    *,
    device: str | None = None,
) -> list[Path]:
    """Plant, ask vanilla and gold, make every edit, ask the edited models; what was done before is not done again.

    Args:
        recipe: What to do.
        find: Finds a model by the name that the recipe has for it.
        out: Run directory; with several settings it holds one for each. It grows while the run goes on, and the same
            recipe goes on where it stopped.
        reporter: Told of stages and progress.
        device: Where models run, see :meth:`kvw.evaluation.loaded.Loaded.load`.

    Returns:
        The run directory of each setting and seed.

    Raises:
        UserError: ``out`` holds the run of another recipe or something else, another process is writing there, or
            something of the recipe cannot be used.
    """
    runs, folders = recipe.runs, list(run_places(recipe, out).values())
    found = [find_models(one, find) for one in runs.values()]
    with growing_directory(out, "bench run"):
        for one, models, folder in zip(runs.values(), found, folders, strict=True):
            check_same_recipe(folder, one)
            _run(one, models, folder, out / MODELS, Stopwatch(reporter), device)
    return folders


def _run(
    recipe: Recipe,
    models: Mapping[str, Checkpoint],
    folder: Path,
    planted: Path,
    watch: Stopwatch,
    device: str | None,
) -> None:
    """One setting."""
    with watch.stage("reading the benchmark"):
        data = load_benchmark(recipe.benchmark)
        protocol = Protocol(shots=recipe.evaluation.shots, seed=recipe.benchmark.only_seed)
        asked = questions(data, protocol, recipe.evaluation)
    work = _Work(recipe, data, asked, RunFiles(folder), watch, device)
    with watch.stage("reading the weights' digests"):
        weights = {role: weights_digest(checkpoint.folder) for role, checkpoint in models.items()}
    work.begin(weights, with_gold=models.keys() != {"vanilla"})
    part, plantings = recipe.made_from, {}
    if isinstance(part, PlantPart):
        made = plant(part, data, models["base"], planted, watch, device)
        plantings = {label: one.planting for label, one in made.items()}
        models = {label: one.checkpoint for label, one in made.items()}
    if "gold" in models and not work.finished("gold"):
        work.score(work.load("gold", models["gold"]), "gold", {}, plantings.get("gold"))
    loaded: Loaded | None = None
    for label, values, screened in work.todo():
        if not work.finished(label, values, screened=screened):
            loaded = loaded or work.load("vanilla", models["vanilla"])
            work.score(loaded, label, values, plantings.get(label), screened=screened)


def load_benchmark(part: BenchmarkPart) -> BenchmarkData:
    """The data of a recipe with one setting; kvw's own copy is written first if there is none.

    Raises:
        UserError: The data cannot be loaded.
    """
    source: str | Path | None = cached_copy(part.name) if part.source == SOURCE else part.source or None
    (setting,) = part.setting
    return get_benchmark(part.name).load(source, setting or None, seed=part.only_seed, others=part.others or None)


class _Work:
    """One run, stage by stage."""

    def __init__(
        self,
        recipe: Recipe,
        data: BenchmarkData,
        asked: Sequence[Question],
        files: RunFiles,
        watch: Stopwatch,
        device: str | None,
    ) -> None:
        self.device = device
        self.recipe, self.data, self.asked, self.files, self.watch = recipe, data, asked, files, watch
        self.forget = training_examples(data, "forget", recipe.benchmark)
        self.retain = training_examples(data, "retain", recipe.benchmark)
        data_digests = [examples_digest(examples) for examples in (self.forget, self.retain)]
        # Another copy of the data may be behind the same name by now.
        data_digests += [examples_digest(one.example for one in asked)]
        compared = [alternatives(one.task, one.item) for one in asked]
        self.screening = _screening(asked, recipe.choice)
        self.settings = [(part.called, values) for part in recipe.method for values in part.settings]
        self.methods = {part.called: get_method(part.name) for part in recipe.method}
        self.base = digest(
            recipe.benchmark.model_dump(), recipe.evaluation.model_dump(), data_digests, compared, package_versions()
        )

    def begin(self, weights: dict[str, str], *, with_gold: bool) -> None:
        """Write the manifest, or check that the one that is there names the same models.

        Raises:
            UserError: It names other models.
        """
        labels: list[tuple[str, dict[str, Any]]] = [("vanilla", {})]
        labels += [("gold", {})] if with_gold else []
        labels += self.settings
        manifest = Manifest(
            title=self.recipe.title,
            recipe=self.recipe.model_dump(mode="json"),
            recipe_digest=recipe_digest(self.recipe),
            benchmark=self.data.benchmark,
            setting=self.data.setting,
            protocol=Protocol(shots=self.recipe.evaluation.shots, seed=self.recipe.benchmark.only_seed).name,
            forget=len(self.forget),
            retain=len(self.retain),
            models=weights,
            tasks=_tasks(self.asked),
            folds=_folds(self.data, self.recipe),
            unusable=len(self.data.unusable),
            not_computed=sorted({m for q in self.asked for m in q.task.metrics} - COMPUTED.keys() - PAIRED.keys()),
            requests=[self.identifier(label, values) for label, values in labels],
            versions=package_versions(),
        )
        before = self.files.manifest()
        if before is not None and before.models != weights:
            roles = [role for role in weights if before.models.get(role) != weights[role]]
            raise UserError(
                f"{self.files.folder} holds answers of other models.",
                found=f"other weights by now: {', '.join(roles)}",
                do="name another --out",
            )
        self.files.write_manifest(manifest)

    def identifier(self, label: str, values: dict[str, Any] | None = None) -> str:
        """Named after all that the answers depend on; settings that were not given, too: defaults may change."""
        method = self.methods.get(label)
        settings = asdict(method.read(values or {})) if method else {}
        name, version = (method.name, method.version) if method else (None, "")
        return f"{label}-{digest(self.base, label, name, settings, *filter(None, [version]))[:12]}"

    def todo(self) -> Iterator[tuple[str, dict[str, Any], bool]]:
        """Vanilla, all settings, and at last those that are chosen by what the others were asked.

        Yields:
            Label, settings, and whether to ask only what settings are chosen by.
        """
        yield "vanilla", {}, False
        for label, values in self.settings:
            yield label, values, len(self.screening) < len(self.asked)
        for label, values in self.chosen():
            yield label, values, False

    def chosen(self) -> list[tuple[str, dict[str, Any]]]:
        """The settings that either half chooses."""
        manifest = self.files.manifest()
        identifiers = [self.identifier(label, values) for label, values in [("vanilla", {}), *self.settings]]
        records = [record for record in map(self.files.record, identifiers) if record is not None]
        if manifest is None or len(records) < len(identifiers):
            raise RuntimeError("settings are chosen when all of them were asked")
        choices, _ = choose(manifest, records, {name: self.files.items(name) or [] for name in identifiers})
        wanted = {choice.identifier for choice in choices}
        return [(label, values) for label, values in self.settings if self.identifier(label, values) in wanted]

    def finished(self, label: str, values: dict[str, Any] | None = None, *, screened: bool = False) -> bool:
        record = self.files.record(self.identifier(label, values))
        return record is not None and (screened or not record.only_screened)

    def load(self, label: str, checkpoint: Checkpoint) -> Loaded:
        with self.watch.stage(f"loading {label}"):
            return Loaded.load(checkpoint, self.device)

    def score(
        self,
        loaded: Loaded,
        label: str,
        values: dict[str, Any],
        planting: PlantingPart | None,
        *,
        screened: bool = False,
    ) -> None:
        """Unlearn, if the label is a method's, and ask the model: everything, or what settings are chosen by."""
        identifier, before = self.identifier(label, values), dict(self.watch.seconds)
        described = label + "".join(f" {name}={value}" for name, value in values.items())
        change = None if label in ("vanilla", "gold") else self.make_change(loaded, label, values, described)
        scores, asked = self.files.items(identifier) or [], self.screening if screened else self.asked
        if len(scores) < len(asked):
            in_force = change.on(loaded.model) if change else nullcontext()
            title = f"asking {described} the rest" if scores else f"asking {described}"
            with self.watch.stage(title) as progress, in_force:
                scores = self.ask(loaded, identifier, asked, scores, progress)
        self.files.journal(identifier).discard()  # its items are there, perhaps since a run that was killed right after
        outcomes: dict[str, list[Any]] = {}
        for score in scores:
            outcomes.setdefault(f"{score.split}/{score.task}", []).append(score.outcome)
        earlier = self.files.record(identifier)  # of what settings are chosen by
        spent = {name: seconds for name, seconds in self.watch.seconds.items() if name not in before}
        record = ModelRecord(
            identifier=identifier,
            label=label,
            settings=values,
            model=str(loaded.checkpoint),
            model_fingerprint=loaded.fingerprint,
            edit_digest=change.digest if change else "",
            planting=planting,
            only_screened=len(scores) < len(self.asked),
            outcomes={place: vars(OutcomeCounts.of(found)) for place, found in outcomes.items()},
            seconds=(earlier.seconds if earlier else {}) | spent,
        )
        self.files.write_record(identifier, record)

    def ask(
        self,
        loaded: Loaded,
        identifier: str,
        asked: Sequence[Question],
        before: Sequence[ItemScore],
        progress: Progress,
    ) -> list[ItemScore]:
        """Ask the model what it was not asked before; from then on its items are there."""
        items = {(score.split, score.task, score.identifier): score for score in before}
        left = [one for one in asked if (*one.place, one.example.identifier) not in items]
        likelihoods = self.recipe.evaluation.likelihoods
        with self.files.journal(identifier) as journal:
            evaluation = ask(loaded.model, loaded.processor, left, journal, likelihoods=likelihoods, progress=progress)
        items |= {(score.split, score.task, score.identifier): score for score in evaluation}
        scores = [items[(*one.place, one.example.identifier)] for one in asked]
        self.files.write_items(identifier, scores)
        return scores

    def make_change(self, loaded: Loaded, label: str, values: dict[str, Any], described: str) -> Change:
        """What a method does with these settings; made once and kept."""
        method, identifier = self.methods[label], self.identifier(label, values)
        settings = method.read(values)
        path, folder = self.files.edit_file(identifier), self.files.trained_folder(identifier)
        if not (folder.is_dir() or path.is_file()):
            with self.watch.stage(f"unlearning with {described}") as progress:
                if isinstance(method, Trained):
                    others = first_wrong_answers(training_items(self.data, "forget", self.recipe.benchmark))
                    state = self.files.state_file(identifier)
                    train_and_put_back(
                        method, loaded, self.forget, self.retain, settings, others, folder, state, progress
                    )
                else:
                    unlearned = unlearn(method, loaded, self.forget, self.retain, settings, progress)
                    write_edit(unlearned.edit, path)  # settings under which nothing is weakened are a result, too
        return TrainedChange(folder) if isinstance(method, Trained) else EditChange(read_edit(path))


def training_items(data: BenchmarkData, name: str, part: BenchmarkPart) -> list[Item]:
    """What the methods get, before it is put into words.

    Args:
        data: The benchmark.
        name: ``forget`` or ``retain``.
        part: Table of the recipe.

    Raises:
        UserError: The benchmark has no training items.
    """
    items = [item for item in data.training.get(name, ()) if item.images or part.unlearn_on == "everything"]
    if not items:
        raise UserError(
            f"{data.benchmark} gives the methods no {name} examples.",
            found=", ".join(data.training),
            do="choose another setting of the benchmark, or unlearn_on = 'everything'",
        )
    return items


def training_examples(data: BenchmarkData, name: str, part: BenchmarkPart) -> list[Example]:
    """What the methods get: see :func:`training_items`."""
    return [item.example() for item in training_items(data, name, part)]


def _screening(asked: Sequence[Question], choice: ChoicePart) -> list[Question]:
    """What settings are chosen by; everything if the recipe does not name tasks."""
    if not choice.tasks:
        return list(asked)
    places = [(split, task) for split in (choice.forget, choice.retain) for task in choice.tasks]
    for split, task in places:
        known(task, {one.task_name: None for one in asked if one.split == split}, "task", f"choice, split {split}")
    return [one for one in asked if one.place in places]


def _tasks(asked: Sequence[Question]) -> list[TaskPart]:
    by_task: dict[tuple[str, str], list[Question]] = {}
    for question in asked:
        by_task.setdefault((question.split, question.task_name), []).append(question)
    return [
        TaskPart(
            split=split,
            task=name,
            modality=several[0].task.modality,
            metric=next((COMPUTED[m] for m in several[0].task.metrics if m in HEADLINES), "correct"),
            items=len(several),
            named=tuple(several[0].task.metrics),
        )
        for (split, name), several in by_task.items()
    ]


def _folds(data: BenchmarkData, recipe: Recipe) -> dict[str, int]:
    halves, _ = two_folds(data, recipe.benchmark.only_seed)
    return {
        item.subject: number
        for number, half in enumerate(halves)
        for tasks in half.splits.values()
        for task in tasks.values()
        for item in task.items
    }
