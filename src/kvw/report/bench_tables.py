"""Tables of benchmark runs made from their records."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence

from markupsafe import Markup
from rich.text import Text

from kvw.bench.further import Cell, Row
from kvw.bench.results import Results
from kvw.bench.together import Comparison
from kvw.pages.bench_page import bench_page
from kvw.report.bench_notes import notes
from kvw.report.latex import bold, comments, escaped, tabular
from kvw.report.sheets import Sheet, cell_text, tex_cell
from kvw.report.terminal import console, number_table

MODELS = ("vanilla", "gold")
NUMBERS = ("split", "task", "modality", "metric", "model", "mean", "low", "high", "items")
RUN = ("title", "benchmark", "setting", "seeds")


def bench_table(found: Comparison) -> Sheet:
    """The table of one run or of several seeds: a row for each score; CSV has every number in a line of its own."""
    rows = [*found.rows, *found.further]
    return Sheet(
        title=found.title,
        header=["split", "task", "metric", *found.models],
        texts=3,
        tables={
            "": [[row.split, row.task, row.metric.replace("_", " "), *map(row.cells.get, found.models)] for row in rows]
        },
        notes=notes(found),
        numbers=[list(NUMBERS), *_numbers(rows)],
        latex=latex_table(found),
    )


def best_methods(row: Row, *, lowest: bool) -> set[str]:
    """The methods with the best mean of a row, by the three digits that are shown; none if there is one method."""
    means = {name: f"{cell.mean:.3f}" for name, cell in row.cells.items() if name not in MODELS}
    wanted = (min if lowest else max)(means.values(), key=float, default="")
    return {name for name, mean in means.items() if float(mean) == float(wanted)} if len(means) > 1 else set()


def rule(found: Comparison) -> str:
    """What is bold."""
    about = ", ".join(found.forgotten)
    lowest = f"the lowest where the split is about what is to be forgotten ({about}), else the highest"
    return f"Bold: the best method by the three digits shown: {lowest}. Vanilla and gold take no part."


def latex_table(found: Comparison) -> str:
    """A row for each model and a column for each task, with the score that stands for it; see :func:`rule`."""
    best = [best_methods(row, lowest=row.split in found.forgotten) for row in found.rows]

    def line(model: str) -> list[str]:
        cells = [tex_cell(row.cells.get(model)) for row in found.rows]
        return [
            escaped(model),
            *(bold(text) if model in names else text for text, names in zip(cells, best, strict=True)),
        ]

    methods = [name for name in found.models if name not in MODELS]
    groups = [[line(name) for name in names if name in found.models] for names in (MODELS[:1], methods, MODELS[1:])]
    shown = ", ".join(f"{row.split} {row.task}: {row.metric.replace('_', ' ')}" for row in found.rows)
    words = [*notes(found), f"Scores: {shown}.", rule(found)]
    return comments(words) + tabular([(row.split, row.task) for row in found.rows], groups)


def html_page(found: Sequence[Comparison]) -> str:
    """One page that refers to nothing outside of it: what each method took away, then the tables; see :func:`rule`."""
    first = found[0]
    several = len(found) > 1
    title = f"{len(found)} benchmark runs" if several else f"Benchmark: {first.title}"
    sections = [
        (_heading(one) if several else "", ["split", "task", "metric", *one.models], _marked(one)) for one in found
    ]
    lines = [note for one in found for note in [*([_heading(one)] if several else []), *notes(one), rule(one)]]
    return bench_page(title, [taken_away(one, named=several) for one in found], sections, lines)


def bench_report(results: Comparison) -> str:
    """The page of a run."""
    return html_page([results])


def taken_away(found: Comparison, *, named: bool = False) -> str:
    """What each method took away of what the original scores on what is to be forgotten, in a sentence."""
    gone = found.figures.get("relative_forgetting", {})
    where = f"{_heading(found)}: " if named else ""
    if not gone:
        return f"{where}What was forgotten is not known: the original scores nothing on it, or no method was run."
    taken = ", ".join(f"{name} {cell.mean:.0%}" for name, cell in gone.items())
    return f"{where}Taken away of what the original scores on what is to be forgotten: {taken}."


def csv_text(found: Sequence[Comparison]) -> str:
    """Every number with full precision in a line of its own; of several tables, which one it is of in front."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    several = len(found) > 1
    writer.writerow([*(RUN if several else ()), *NUMBERS])
    for one in found:
        front = list(_run(one).values()) if several else []
        front = [" ".join(map(str, value)) if isinstance(value, list) else value for value in front]
        writer.writerows([*front, *line] for line in _numbers([*one.rows, *one.further]))
    return buffer.getvalue()


def json_text(found: Sequence[Comparison]) -> str:
    """Every number with full precision: a list with an object for each table."""
    return json.dumps([_object(one) for one in found], indent=2)


def print_tables(found: Sequence[Comparison]) -> None:
    """The tables as a terminal shows them, in bold what :func:`rule` says."""
    screen = console()
    for one in found:
        table = number_table("split", "task", "metric", *one.models, left=("task", "metric"), title=_heading(one))
        for row in [*one.rows, *one.further]:
            best = best_methods(row, lowest=row.split in one.forgotten) if row in one.rows else set()
            cells = [Text(cell_text(row.cells.get(name)), style="bold" if name in best else "") for name in one.models]
            table.add_row(row.split, row.task, row.metric.replace("_", " "), *cells)
        screen.print(table)
        for note in [*notes(one), rule(one)]:
            screen.print(f"- {note}")


def _heading(found: Comparison) -> str:
    run = _run(found)
    seeds = f"seeds {', '.join(map(str, found.seeds))}" if len(found.seeds) > 1 else f"seed {found.seeds[0]}"
    return f"{run['title']} ({run['setting']}, {seeds})"


def _marked(found: Comparison) -> list[list[str]]:
    """The rows as texts, the best in bold."""
    lines = []
    for row in [*found.rows, *found.further]:
        best = best_methods(row, lowest=row.split in found.forgotten) if row in found.rows else set()
        texts = {name: cell_text(row.cells.get(name)) for name in found.models}
        cells = [Markup("<strong>{}</strong>").format(text) if name in best else text for name, text in texts.items()]
        lines.append([row.split, row.task, row.metric.replace("_", " "), *cells])
    return lines


def _run(found: Comparison) -> dict[str, object]:
    manifest = found.manifest
    values = (found.title, manifest.benchmark, manifest.setting, list(found.seeds))
    return dict(zip(RUN, values, strict=True))


def _object(found: Comparison) -> dict[str, object]:
    def cells(row: Row) -> dict[str, object]:
        return {**row.model_dump(), "lowest_is_best": row.split in found.forgotten}

    return {
        **_run(found),
        "interval": "95 % Student over seeds" if len(found.seeds) > 1 else "95 % bootstrap over subjects",
        "rows": [cells(row) for row in found.rows],
        "further": [row.model_dump() for row in found.further],
        "figures": {name: _dumped(figure) for name, figure in found.figures.items()},
        "runs": [_one(seed, run) for seed, run in zip(found.seeds, found.runs, strict=True)],
    }


def _dumped(cells: Mapping[str, Cell]) -> dict[str, object]:
    return {name: cell.model_dump() for name, cell in cells.items()}


def _one(seed: int, run: Results) -> dict[str, object]:
    """What a table does not show of one run."""
    told = run.model_dump(mode="json", include={"choices", "outcomes", "forget_quality"})
    return {"seed": seed, "protocol": run.manifest.protocol, **told}


def _numbers(rows: Sequence[Row]) -> list[list[object]]:
    return [
        [row.split, row.task, row.modality, row.metric, name, cell.mean, cell.low, cell.high, cell.items]
        for row in rows
        for name, cell in row.cells.items()
    ]
