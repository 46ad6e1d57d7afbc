"""How far the settings of a method reach: what each forgets against what it keeps, and the area under them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from kvw.bench.further import item_value
from kvw.bench.record import Manifest, ModelRecord
from kvw.bench.scores import ItemScore

Point = tuple[float, float]
"""Share of vanilla's forget score that is gone, and share of its retain score that is kept; both between 0 and 1."""


def reach(
    manifest: Manifest, records: Sequence[ModelRecord], items: Mapping[str, Sequence[ItemScore]]
) -> dict[str, dict[str, Point]]:
    """The point of every setting, over all items of the tasks that settings are chosen by.

    Args:
        manifest: What the run is about.
        records: Vanilla and every method with all its settings.
        items: Their items, by the identifier of the record.

    Returns:
        By method and by the identifier of the record. Empty where vanilla answers nothing of a split.
    """
    means = {record.identifier: forget_retain(manifest, items[record.identifier]) for record in records}
    whole = next(means[record.identifier] for record in records if record.label == "vanilla")
    points: dict[str, dict[str, Point]] = {}
    for record in records:
        if record.label not in ("vanilla", "gold") and min(whole) > 0:
            forget, retain = (min(1.0, one / most) for one, most in zip(means[record.identifier], whole, strict=True))
            points.setdefault(record.label, {})[record.identifier] = (1 - forget, retain)
    return points


def hypervolume(points: Iterable[Point]) -> float:
    """The area of all (x, y) with 0 <= x <= X and 0 <= y <= Y for one of the points (X, Y).

    The usual indicator of multi-objective optimisation (Zitzler and Thiele, 1999), with the reference point (0, 0).
    Here 1 is to forget everything at no cost, and 0 to forget nothing or keep nothing.
    """
    area, reached = 0.0, 0.0
    for x, y in sorted(points, reverse=True, key=lambda point: (point[1], point[0])):
        area += max(0.0, x - reached) * y
        reached = max(reached, x)
    return area


def forget_retain(manifest: Manifest, items: Iterable[ItemScore]) -> Point:
    """Means over the split to forget and the one to retain, of the tasks that settings are chosen by; 0 for none."""
    choice = manifest.recipe["choice"]
    metrics = {(task.split, task.task): task.metric for task in manifest.tasks}
    tasks = choice["tasks"] or {task.task for task in manifest.tasks}
    values: dict[str, list[float]] = {choice["forget"]: [], choice["retain"]: []}
    for item in items:
        if item.task in tasks and item.split in values:
            values[item.split].append(item_value(item, metrics[item.split, item.task]))
    forget, retain = (fmean(found) if found else 0.0 for found in values.values())
    return forget, retain
