"""The page of one ``kvw erase``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kvw.edits.summary import LayerSummary
from kvw.pages.cases import Case, cases
from kvw.pages.figures import BarChart, LineChart, Series
from kvw.pages.frame import page
from kvw.pages.verdict import asks_forgotten, asks_others, verdict
from kvw.records.run import CandidatePart, RunRecord, SelectionPart, SplitPart
from kvw.records.samples import Row
from kvw.selection.splits import ALL_HELD_OUT, FORGET, FORGETTING, HELD_OUT_FORGET, OWN_WORDS

KINDS = {
    "correct": "correct",
    "wrong": "plausible but wrong",
    "other": "somebody else's answer",
    "refusal": "refusal",
    "gibberish": "gibberish",
    "none": "no answer",
}
"""The kinds of answers, in words."""
STYLES = {FORGET: "", HELD_OUT_FORGET: "dash", OWN_WORDS: "dots"}
TOY = "toy:"


@dataclass(frozen=True)
class SplitRow:
    """A split as the table shows it.

    Args:
        name: Its name.
        split: Split of the record.
        about: ``the forgotten``, ``others``, ``both``, or empty if it is not known.
        marks: Words and kinds of marks: used, judged the edit, held out; with counts if it is more than one.
    """

    name: str
    split: SplitPart
    about: str
    marks: list[tuple[str, str]]


def run_page(record: RunRecord, rows: Sequence[Row] = (), *, show_examples: bool = False) -> str:
    """The page of a run.

    Args:
        record: Its ``run.json``.
        rows: Its ``samples.jsonl``; looked at for examples only.
        show_examples: Whether questions, answers and photos are shown. Those of the toy, who are made up, always are.

    Returns:
        One HTML file, see :func:`kvw.pages.frame.page`.
    """
    toy = record.model.name.startswith(TOY)
    shown = cases(record, rows) if show_examples or toy else []
    return page(
        "run.html",
        title=f"Report of kvw erase: {record.model.name}",
        verdict=verdict(record),
        confidential=_confidential(shown, toy=toy),
        record=record,
        splits=[SplitRow(name, split, _about(name, split), _marks(split)) for name, split in record.splits.items()],
        charts=_charts(record.selection),
        places=_places(record.layers),
        kinds=_kinds_found(record),
        kind_names=KINDS,
        cases=shown,
        forgetting=FORGETTING,
        all_held_out=ALL_HELD_OUT,
    )


def _confidential(shown: Sequence[Case], *, toy: bool) -> str:
    if toy:
        return "It shows questions and answers of the run. Here the people are made up." if shown else ""
    if shown:
        return "It shows what was to be forgotten, in questions, answers and photos. Do not publish it with the model."
    return "It names the files of the request. It shows no question and no answer."


def _about(name: str, split: SplitPart) -> str:
    if name == "forget" or asks_forgotten(split):
        return "the forgotten"
    if split.seen is None or not split.subjects:
        return ""
    return "others" if asks_others(split) else "both"


def _marks(split: SplitPart) -> list[tuple[str, str]]:
    if split.seen is None:
        return []
    count = split.original.count
    marks = {"used": split.seen.used, "judged": split.seen.judged}
    marks["unseen"] = count - sum(marks.values())
    words = {"used": "used", "judged": "chose the strength", "unseen": "held out"}
    parts = {kind: number for kind, number in marks.items() if number}
    return [(words[kind] if len(parts) == 1 else f"{number} {words[kind]}", kind) for kind, number in parts.items()]


def _charts(selection: SelectionPart | None) -> list[tuple[LineChart, LineChart | None]]:
    """What is forgotten and what is kept over the dose, one pair of charts for every part of the model that was
    tried."""
    if selection is None or not selection.unit:
        return []
    tried: dict[str, list[CandidatePart]] = {}
    for one in selection.candidates:
        if one.dose is not None:
            tried.setdefault(one.where, []).append(one)
    return [_pair(selection, where, found) for where, found in tried.items()]


def _pair(
    selection: SelectionPart, where: str, candidates: Sequence[CandidatePart]
) -> tuple[LineChart, LineChart | None]:
    ordered = sorted(candidates, key=lambda one: one.dose or 0.0)
    places = ["none", *(f"{one.dose:.4g}" for one in ordered)]
    picked = next((place for place, one in enumerate(ordered, 1) if one.chosen), None)
    place = f", {where}" if where else ""
    forgetting = []
    for name in (one for one in FORGETTING if one in selection.original):
        parts = [(0, selection.original[name])]
        parts += [(place, one.splits[name]) for place, one in enumerate(ordered, 1) if name in one.splits]
        values = [(place, part.probability) for place, part in parts]
        forgetting.append(Series(name, "forget", values, STYLES[name]))
    forget = LineChart(f"Probability of forget answers{place}", places, forgetting, selection.unit, picked=picked)
    kept = [
        Series("all that was held out", "keep", _kept(ordered, ALL_HELD_OUT)),
        Series("the source that lost most", "keep", _least(ordered), "dash"),
    ]
    kept = [one for one in kept[: 1 if kept[0].values == kept[1].values else 2] if len(one.values) > 1]
    if not kept:
        return forget, None
    lowest = min(value for one in kept for _, value in one.values)
    bottom = min(0.95, int(min(lowest, selection.keep) * 20) / 20)
    highest = max(1.0, *(value for one in kept for _, value in one.values))
    keep = LineChart(
        f"Kept of what must stay{place}",
        places,
        kept,
        selection.unit,
        lowest=bottom,
        highest=highest,
        digits=1 if 1 - bottom < 0.2 else 0,
        picked=picked,
        limit=selection.keep,
    )
    return forget, keep


def _kept(found: Sequence[CandidatePart], name: str) -> list[tuple[int, float]]:
    return [(0, 1.0)] + [(place, one.kept[name].value) for place, one in enumerate(found, 1) if name in one.kept]


def _least(found: Sequence[CandidatePart]) -> list[tuple[int, float]]:
    asked = [
        (place, [share.value for name, share in one.kept.items() if name != ALL_HELD_OUT])
        for place, one in enumerate(found, 1)
    ]
    return [(0, 1.0)] + [(place, min(values)) for place, values in asked if values]


def _places(layers: Sequence[LayerSummary]) -> list[BarChart]:
    """Where the edit acts: one chart for each kind of value matrix."""
    groups: dict[str, list[tuple[int, LayerSummary]]] = {}
    for one in layers:
        parts = one.key.split(".")
        changed = one.trained is None and one.angle is None
        if changed and len(parts) > 1 and parts[0] == "layer" and parts[1].isdigit():
            kind = "states" if one.shift is not None else parts[2] if len(parts) > 2 else "ffn"
            groups.setdefault(kind, []).append((int(parts[1]), one))
    return [_bar_chart(kind, sorted(found, key=lambda one: one[0])) for kind, found in groups.items()]


def _bar_chart(kind: str, found: Sequence[tuple[int, LayerSummary]]) -> BarChart:
    names = {"ffn": "FFN value matrices", "attention": "Output projections of attention", "experts": "Experts"}
    if kind == "states":
        heights = [one.shift or 0.0 for _, one in found]
        return BarChart("Shift of states", [layer for layer, _ in found], heights, [1.0] * len(found), "")
    directions = any(one.rank is not None for _, one in found)
    unit = "directions" if directions else "knowledge vectors"
    return BarChart(
        f"{names.get(kind, kind)}: {unit} weakened",
        [layer for layer, _ in found],
        [float(one.weakened) for _, one in found],
        [min(1.0, max(0.0, 1 - one.mean_gate)) if directions else 1.0 for _, one in found],
        unit,
    )


def _kinds_found(record: RunRecord) -> list[str]:
    """The kinds of answers that there are any of."""
    answers = [split.answers for split in record.splits.values()]
    return [kind for kind in KINDS if any(one.original.get(kind) or one.unlearned.get(kind) for one in answers)]
