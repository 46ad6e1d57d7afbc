"""Two folds of the evaluation items: settings are chosen on one and reported on the other, both ways round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kvw.data.benchmarks.choices import order_key
from kvw.data.benchmarks.items import BenchmarkData, Item
from kvw.errors import UserError

Halves = tuple[BenchmarkData, BenchmarkData]
"""What to tune on, and what to report on."""


def two_folds(data: BenchmarkData, seed: int = 0) -> tuple[Halves, Halves]:
    """Divide the evaluation items by subject, so that no subject is in both halves.

    Subjects with a published fold stay there. The others are drawn at random, split by split, and assigned in turn,
    so that every split is halved. A subject of several splits (the views of one person) is in the same half in
    all of them. Training items are not divided: the request to forget stays the same.

    Args:
        data: What to divide.
        seed: Seed of the division.

    Returns:
        (validation, test) and (test, validation).

    Raises:
        UserError: A published fold puts one subject into both halves.
    """
    fold_of: dict[str, int] = {}
    for subject, folds in data.published_folds.items():
        if len(folds) != 1:
            raise UserError(
                f"The published folds of {data.benchmark} put {subject} into both halves.",
                found=f"{sum(len(each) > 1 for each in data.published_folds.values())} such people",
                do="load without the published folds, or use the splits of the published rows as they are",
            )
        (fold_of[subject],) = folds
    for tasks in data.splits.values():
        subjects = {item.subject for task in tasks.values() for item in task.items} - fold_of.keys()
        for turn, subject in enumerate(sorted(subjects, key=lambda one: order_key(seed, one))):
            fold_of[subject] = turn % 2
    first = only(data, lambda item: fold_of[item.subject] == 0)
    second = only(data, lambda item: fold_of[item.subject] == 1)
    return (first, second), (second, first)


def only(data: BenchmarkData, keep: Callable[[Item], bool]) -> BenchmarkData:
    """The same benchmark with some of the evaluation items.

    Args:
        data: All of it.
        keep: Which items stay, for example ``lambda item: item.subject == "00044363"``.

    Returns:
        Tasks and splits that lose all their items are left out.
    """
    splits = {}
    for split, tasks in data.splits.items():
        kept = {name: replace(task, items=tuple(filter(keep, task.items))) for name, task in tasks.items()}
        kept = {name: task for name, task in kept.items() if task.items}
        if kept:
            splits[split] = kept
    return replace(data, splits=splits)
