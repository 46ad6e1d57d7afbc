"""``kvw bench attack``: what the models of a finished run say after they were attacked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import fmean

from kvw.bench.asking import Question, ask
from kvw.bench.attacks.plan import BEFORE, RELEARN_RETAIN, Attack, Job, find_jobs, find_targets
from kvw.bench.attacks.record import FOLDER, AttackRecord
from kvw.bench.attacks.results import Attacked, AttackResults, retain_task, summarise_attacks
from kvw.bench.changes import Change, EditChange
from kvw.bench.finished import Find, FinishedRun
from kvw.bench.record import Files
from kvw.bench.results import Results, read_results
from kvw.bench.run import training_examples
from kvw.data import Example
from kvw.edits.edit import package_versions
from kvw.edits.surviving import surviving_shares
from kvw.edits.weight_edit import WeightEdit
from kvw.evaluation.attacks import (
    PutOn,
    attacked,
    folded,
    relearning_settings,
    split_by_subject,
)
from kvw.evaluation.attacks.changing import ROUNDED
from kvw.evaluation.attacks.relearning import LEARNING_RATE
from kvw.evaluation.loaded import Loaded
from kvw.measuring.fingerprint import digest, example_digest
from kvw.output import growing_directory
from kvw.progress import Reporter
from kvw.runs.costs import Stopwatch


def attack(
    folder: Path,
    attacks: Sequence[Attack],
    find: Find,
    reporter: Reporter,
    *,
    learning_rate: float = LEARNING_RATE,
    at_most: int = 0,
    device: str | None = None,
) -> AttackResults:
    """Attack vanilla, gold and every method with its chosen settings; what was done before is not done again.

    Asked are all tasks of the forget split, and for damage the first task of the retain split. As in the run's own
    tables nobody is reported of a model whose settings were chosen on them, and nobody of one that was trained on them.

    Args:
        folder: Directory of a finished run, of one setting.
        attacks: From :func:`~kvw.bench.attacks.plan.parse_attacks`.
        find: Finds a model that the recipe names; models that the run has planted are beside it.
        reporter: Told of stages and progress.
        learning_rate: Learning rate of the attacks that train.
        at_most: Items of each task, drawn at random; 0 for all that the run has asked.
        device: Where models run, see :meth:`kvw.evaluation.loaded.Loaded.load`.

    Raises:
        UserError: The run is not finished, one of its models or edits is not what it was, or another process is
            attacking it.
    """
    results = read_results(folder)
    finished = FinishedRun(folder, results.manifest, Stopwatch(reporter), device)
    work = _Work(finished, results, learning_rate, at_most)
    targets = find_targets(results.manifest, results.choices, work.finished.records)
    with growing_directory(folder / FOLDER, "bench attacks"):
        for label in ("gold", "vanilla"):
            mine = [target for target in targets if (target.record.label == "gold") == (label == "gold")]
            work.make_all(label, [job for target in mine for job in find_jobs(target, attacks)], find)
    columns = [Attack(BEFORE), *attacks]
    return summarise_attacks(
        results.manifest, [work.found(job) for target in targets for job in find_jobs(target, columns)]
    )


class _Work:
    """The attacks on one run."""

    def __init__(self, finished: FinishedRun, results: Results, learning_rate: float, at_most: int) -> None:
        self.manifest, self.watch, self.learning_rate = results.manifest, finished.watch, learning_rate
        self.finished, self.files = finished, Files(finished.files.folder / FOLDER, AttackRecord)
        self.run, self.recipe = self.finished.files, self.finished.recipe
        self.asked = self._asked(self.finished.asked, at_most)
        benchmark, data = self.recipe.benchmark, self.finished.data
        self.retain = training_examples(data, "retain", benchmark)
        self.forget = split_by_subject(
            training_examples(data, "forget", benchmark), benchmark.only_seed, self.manifest.folds
        )
        self._taught: dict[tuple[str, int | None], str] = {}

    def identifier(self, job: Job) -> str:
        """Named after all that the answers depend on."""
        rate = self.learning_rate if job.attack.steps else None
        asked = [(question.place, question.example.identifier) for question in self.questions(job)]
        known = digest(
            job.target.record.identifier, job.attack.title, rate, asked, self.taught(job), package_versions()
        )
        return f"{job.target.record.label}-{job.attack.title.replace(' ', '-')}-{known[:12]}"

    def questions(self, job: Job) -> list[Question]:
        """The questions about people who are reported."""
        return [question for question in self.asked if self.manifest.folds[question.item.subject] in job.reported]

    def examples(self, job: Job) -> Sequence[Example]:
        """What is trained on."""
        if job.half is not None:
            return self.forget[job.half]
        return self.retain if job.attack.name == RELEARN_RETAIN else ()

    def taught(self, job: Job) -> str:
        """Digest of what is trained on, in its order; worked out once."""
        key = (job.attack.name, job.half)
        if key not in self._taught:
            self._taught[key] = digest([example_digest(example) for example in self.examples(job)])
        return self._taught[key]

    def make_all(self, label: str, jobs: Sequence[Job], find: Find) -> None:
        """The attacks on one model and its edits, as far as they have not been made."""
        jobs = [job for job in jobs if self.files.record(self.identifier(job)) is None]
        if jobs:
            loaded = self.finished.load(label, find)
            for job in jobs:
                self.make(loaded, job)

    def make(self, loaded: Loaded, job: Job) -> None:
        """Attack a model and ask it."""
        identifier, before = self.identifier(job), dict(self.watch.seconds)
        record, asked = job.target.record, self.questions(job)
        change, surviving = self.finished.change(record), None
        edit = change.edit if isinstance(change, EditChange) else None
        if isinstance(edit, WeightEdit) and edit.widths and job.attack.name in ROUNDED:
            surviving = fmean(surviving_shares(edit, loaded.model, ROUNDED[job.attack.name]).values())
        training = relearning_settings(loaded.model, self.learning_rate) if job.attack.steps else None
        with (
            self.watch.stage(_described(job)) as progress,
            attacked(
                loaded.model,
                loaded.processor,
                job.attack.name,
                _put_on(change),
                examples=self.examples(job),
                steps=job.attack.steps,
                training=training,
                progress=progress,
            ) as losses,
            self.files.journal(identifier) as journal,
        ):
            likelihoods = self.recipe.evaluation.likelihoods
            scores = ask(loaded.model, loaded.processor, asked, journal, likelihoods=likelihoods, progress=progress)
        self.files.write_items(identifier, scores)
        journal.discard()
        self.files.write_record(
            identifier,
            AttackRecord(
                identifier=identifier,
                attacked=record.identifier,
                label=record.label,
                settings=record.settings,
                attack=job.attack.name,
                steps=job.attack.steps,
                taught_half=job.half,
                taught=len(self.examples(job)),
                training=asdict(training) if training else {},
                losses=list(losses),
                surviving=surviving,
                items=len(scores),
                seconds={name: spent for name, spent in self.watch.seconds.items() if name not in before},
                versions=package_versions(),
            ),
        )

    def found(self, job: Job) -> Attacked:
        """A model before or after an attack, from its files."""
        if job.attack.name != BEFORE:
            identifier = self.identifier(job)
            return Attacked(job, self.files.record(identifier), self.files.items(identifier) or [])
        asked = {(*question.place, question.example.identifier) for question in self.questions(job)}
        items = self.run.items(job.target.record.identifier) or []
        return Attacked(job, None, [one for one in items if (one.split, one.task, one.identifier) in asked])

    def _asked(self, everything: Sequence[Question], at_most: int) -> list[Question]:
        """All questions of the forget split, and those of one task of the retain split."""
        damage = retain_task(self.manifest)
        wanted = [(task.split, task.task) for task in self.manifest.tasks if task.split == self.recipe.choice.forget]
        wanted += [(damage.split, damage.task)] if damage else []
        asked: list[Question] = []
        for place in wanted:
            asked += [question for question in everything if question.place == place][: at_most or None]
        return asked


def _put_on(change: Change | None) -> PutOn:
    """How it gets onto vanilla: what can be folded into the weights is, since that is what is given away."""
    if change is None:
        return lambda _: nullcontext()
    return partial(folded, edit=change.edit) if isinstance(change, EditChange) else change.on


def _described(job: Job) -> str:
    """A job in words, for whoever watches; every job has words of its own."""
    record = job.target.record
    attack = job.attack.title if job.half is None else f"{job.attack.title} (half {job.half})"
    return f"{attack} on {record.label}" + "".join(f" {name}={value}" for name, value in record.settings.items())
