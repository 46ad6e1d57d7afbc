"""``kvw bench calibrate``: every method of a finished run, weakened until it keeps as much as the others."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from kvw.bench.asking import Question
from kvw.bench.attacks.plan import Target, find_targets
from kvw.bench.calibration.record import FOLDER, Measurement, Strength
from kvw.bench.calibration.results import Calibrated, CalibrationResults, kept, summarise_calibration
from kvw.bench.calibration.search import Curve
from kvw.bench.finished import Find, FinishedRun
from kvw.bench.record import Files
from kvw.bench.results import Results, read_results
from kvw.data import prepare
from kvw.edits.edit import package_versions
from kvw.errors import UserError
from kvw.evaluation.evaluation import unreadable_images
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.metrics import extraction_strength
from kvw.evaluation.probability import token_scores
from kvw.measuring.fingerprint import digest
from kvw.output import growing_directory
from kvw.progress import Progress, Reporter
from kvw.runs.costs import Stopwatch


def calibrate_run(
    folder: Path,
    taus: Sequence[float],
    find: Find,
    reporter: Reporter,
    *,
    at_most: int = 0,
    device: str | None = None,
) -> CalibrationResults:
    """Bring every method to the same retention, and measure what is left of the forget answers.

    The weights of a method are mixed with those of vanilla, W + share (W' - W); edits that act by hooks are taken at a
    part of their strength. The share is the largest that keeps ``tau`` of vanilla's extraction strength on the retain
    questions, each task by itself, and the task that keeps least counts. It is found on the half of the people that
    has chosen the method's settings; the numbers are of the other half.

    What was measured before is not measured again.

    Args:
        folder: Directory of a finished run, of one setting.
        taus: Shares of retention, from 0 to 1.
        find: Finds a model that the recipe names.
        reporter: Told of stages and progress.
        at_most: Items of each task, drawn at random; 0 for all that the run has asked.
        device: Where models run, see :meth:`kvw.evaluation.loaded.Loaded.load`.

    Raises:
        UserError: The run is not finished, one of its models or edits is not what it was, it asks no retain question
            that has an extraction strength, or another process is calibrating it.
    """
    if wrong := [tau for tau in taus if not 0 <= tau <= 1]:
        raise UserError("A share of retention lies between 0 and 1.", found=f"{wrong[0]:g}", do="for example --tau 0.9")
    results = read_results(folder)
    finished = FinishedRun(folder, results.manifest, Stopwatch(reporter), device)
    work = _Work(finished, results, find, at_most)
    targets = find_targets(results.manifest, results.choices, work.finished.records)
    with growing_directory(folder / FOLDER, "bench calibration"):
        # Gold first and vanilla after it: only one model is in memory.
        gold = [work.reference(target) for target in targets if target.record.label == "gold"]
        vanilla = [work.reference(target) for target in targets if target.record.label == "vanilla"]
        methods = [
            work.calibrated(target, half, taus)
            for target in targets
            if target.record.label not in ("vanilla", "gold")
            for half in target.chosen_on
        ]
    return summarise_calibration(results.manifest, list(taus), vanilla[0], gold[0] if gold else None, methods)


class _Work:
    """The measurements on one run."""

    def __init__(self, finished: FinishedRun, results: Results, find: Find, at_most: int) -> None:
        self.manifest, self.watch, self.find = results.manifest, finished.watch, find
        self.finished, self.files = finished, Files(finished.files.folder / FOLDER, Measurement)
        self.retain = self.finished.recipe.choice.retain
        self.asked = _at_most([one for one in self.finished.asked if not one.item.choices], at_most)
        if not any(one.split == self.retain for one in self.asked):
            raise UserError(
                "The run has asked no retain question with an answer in words, by which methods could be calibrated.",
                found=f"split {self.retain}",
                do="make a run whose recipe asks one",
            )
        self._loaded: tuple[str, Loaded] | None = None

    def reference(self, target: Target) -> list[Strength]:
        """Vanilla or gold, about everybody who is reported of any method."""
        halves = {1 - half for half in target.chosen_on}
        asked = [one for one in self.asked if self.manifest.folds[one.item.subject] in halves]
        with self.watch.stage(f"scoring {target.record.label}") as progress:
            return self.measured(target, 1.0, asked, progress)

    def calibrated(self, target: Target, half: int, taus: Sequence[float]) -> Calibrated:
        """A method with the settings that one half has chosen: the share by that half, numbers of the other."""
        mine = [one for one in self.asked if self.manifest.folds[one.item.subject] == half]
        judging = [one for one in mine if one.split == self.retain]
        reported = [one for one in self.asked if self.manifest.folds[one.item.subject] != half]
        label = f"{target.record.label}, half {half}"
        with self.watch.stage(f"calibrating {label}"):
            whole = self.measured(target, 0.0, judging)
            curve = Curve(lambda share: kept(self.measured(target, share, judging), whole))
            shares = {tau: curve.largest(tau) for tau in taus}
        with self.watch.stage(f"scoring {label}"):
            items = {tau: self.measured(target, share, reported) for tau, share in shares.items()}
        return Calibrated(target.record.label, half, shares, items, curve.points)

    def measured(
        self, target: Target, share: float, asked: Sequence[Question], progress: Progress | None = None
    ) -> list[Strength]:
        """Extraction strengths at a share, from the files if they are there."""
        record = target.record
        places = [(*one.place, one.example.identifier) for one in asked]
        identifier = f"{record.label}-{digest(record.identifier, share, places, package_versions())[:12]}"
        found = self.files.record(identifier)
        if found is None:
            change = self.finished.change(record)
            loaded = self.load("gold" if record.label == "gold" else "vanilla")
            with change.at(share).on(loaded.model) if change else nullcontext():
                items = _strengths(loaded, asked, progress)
            versions = package_versions()
            found = Measurement(
                measured=record.identifier, label=record.label, share=share, items=items, versions=versions
            )
            self.files.write_record(identifier, found)
        return found.items

    def load(self, label: str) -> Loaded:
        """Vanilla or gold; the one that was loaded before is given up."""
        if self._loaded is None or self._loaded[0] != label:
            self._loaded = None
            self._loaded = label, self.finished.load(label, self.find)
        return self._loaded[1]


def _at_most(asked: Sequence[Question], count: int) -> list[Question]:
    """The first questions of each task."""
    seen: dict[tuple[str, str], int] = {}
    found = []
    for one in asked:
        seen[one.place] = seen.get(one.place, 0) + 1
        if not count or seen[one.place] <= count:
            found.append(one)
    return found


def _strengths(loaded: Loaded, asked: Sequence[Question], progress: Progress | None) -> list[Strength]:
    """By teacher forcing, in one forward pass over each answer."""
    unreadable = unreadable_images([one.example for one in asked])
    readable = [one.example for row, one in enumerate(asked) if row not in unreadable]
    prepared = prepare(readable, loaded.processor, loaded.model.config)
    scores = iter(token_scores(loaded.model, loaded.processor, prepared, progress=progress))
    return [
        Strength(
            split=one.split,
            task=one.task_name,
            subject=one.item.subject,
            value=0.0 if row in unreadable else extraction_strength(next(scores).is_argmax),
        )
        for row, one in enumerate(asked)
    ]
