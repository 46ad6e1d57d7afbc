"""What methods have forgotten when they keep the same, from measurements alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from kvw.bench.calibration.record import Strength
from kvw.bench.further import Cell
from kvw.bench.record import Manifest
from kvw.strict import Strict

Place = tuple[str, str]
"""Split and task."""


@dataclass(frozen=True)
class Calibrated:
    """A method with the settings that one half of the people has chosen.

    Args:
        label: The method.
        half: That half, which has chosen the shares, too.
        shares: Shares by tau.
        items: Items by tau, about the other half.
        points: What is kept on the half at each share that was tried.
    """

    label: str
    half: int
    shares: Mapping[float, float]
    items: Mapping[float, Sequence[Strength]]
    points: Mapping[float, float]


class CalibrationLine(Strict):
    """One model at one level of retention."""

    model: str
    tau: float | None
    """None for vanilla and gold, which are not calibrated."""
    shares: list[float]
    """Of the change, for each half that chose one."""
    kept: float
    """Of vanilla's extraction strength on the retain tasks, the least of them; about those who are reported."""
    way_to_gold: float | None
    """How far the forget answers went from vanilla to gold, 1 for all the way; None without gold, or where gold gives
    them as well as vanilla."""
    cells: list[Cell | None]
    """Extraction strength in each of :attr:`CalibrationResults.places`."""


class CalibrationResults(Strict):
    """Everything the tables show."""

    manifest: Manifest
    taus: list[float]
    places: list[Place]
    lines: list[CalibrationLine]
    curves: dict[str, list[tuple[float, float]]]
    """By method and half: share of the change, and what it keeps on the half that chooses."""


def kept(items: Sequence[Strength], whole: Sequence[Strength]) -> float:
    """The share of the original's mean that is left, of the task that keeps least.

    Args:
        items: Items of retain questions.
        whole: The same questions, asked of the original.

    Returns:
        1 if the original gives none of these answers: there is nothing to lose.
    """
    before, after = _means(whole), _means(items)
    return min((after[place] / value for place, value in before.items() if value), default=1.0)


def summarise_calibration(
    manifest: Manifest,
    taus: Sequence[float],
    vanilla: Sequence[Strength],
    gold: Sequence[Strength] | None,
    methods: Sequence[Calibrated],
) -> CalibrationResults:
    """Put the numbers together.

    Args:
        manifest: Manifest of the run.
        taus: In the order of the tables.
        vanilla: About everybody who is reported.
        gold: The same; None if the run has no gold model.
        methods: Each method, once for each half that chose its settings.
    """
    places = list(dict.fromkeys((one.split, one.task) for one in vanilla))
    split, retain = (str(manifest.recipe["choice"][part]) for part in ("forget", "retain"))
    ends = tuple(_mean(items, split) for items in (vanilla, gold or ()))

    def line(model: str, tau: float | None, shares: list[float], items: Sequence[Strength]) -> CalibrationLine:
        return CalibrationLine(
            model=model,
            tau=tau,
            shares=shares,
            kept=kept(_of(items, retain), _of(vanilla, retain)),
            way_to_gold=_way(_mean(items, split), *ends) if gold else None,
            cells=[_cell([one for one in items if (one.split, one.task) == place]) for place in places],
        )

    lines = [line("vanilla", None, [], vanilla)]
    for tau in taus:
        for label in dict.fromkeys(one.label for one in methods):
            halves = [one for one in methods if one.label == label]
            shares = [one.shares[tau] for one in halves]
            lines.append(line(label, tau, shares, [item for one in halves for item in one.items[tau]]))
    if gold:
        lines.append(line("gold", None, [], gold))
    curves = {f"{one.label}, half {one.half}": sorted(one.points.items()) for one in methods}
    return CalibrationResults(manifest=manifest, taus=list(taus), places=places, lines=lines, curves=curves)


def _way(value: float, vanilla: float, gold: float) -> float | None:
    return (vanilla - value) / (vanilla - gold) if vanilla != gold else None


def _of(items: Sequence[Strength], split: str) -> list[Strength]:
    return [one for one in items if one.split == split]


def _mean(items: Sequence[Strength], split: str) -> float:
    """Mean over the tasks of a split, of their means."""
    return fmean(_means(_of(items, split)).values() or [0.0])


def _means(items: Sequence[Strength]) -> dict[Place, float]:
    values: dict[Place, list[float]] = {}
    for one in items:
        values.setdefault((one.split, one.task), []).append(one.value)
    return {place: fmean(found) for place, found in values.items()}


def _cell(items: Sequence[Strength]) -> Cell | None:
    return Cell.of([one.value for one in items], [one.subject for one in items]) if items else None
