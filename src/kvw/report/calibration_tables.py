"""The table of methods at equal retention as Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from kvw.bench.calibration.results import CalibrationLine, CalibrationResults
from kvw.bench.further import Cell
from kvw.report.bench_tables import Format, escaped, latex_cell, latex_tabular, markdown_rows, text_cell

HEADER = ("tau", "model", "share", "kept", "way to gold")


def calibration_table(results: CalibrationResults, form: Format) -> str:
    """A row for each method at each level of retention, between vanilla and gold.

    Args:
        results: From :func:`kvw.bench.calibration.run.calibrate_run`.
        form: CSV has the ends of the intervals in columns of their own.
    """
    makers: dict[Format, Callable[[CalibrationResults], str]] = {"markdown": _markdown, "latex": _latex, "csv": _csv}
    return makers[form](results)


def notes(results: CalibrationResults) -> list[str]:
    """What a reader of the table must know."""
    manifest = results.manifest
    retain = manifest.recipe["choice"]["retain"]
    return [
        f"{manifest.benchmark}, {manifest.setting}; {manifest.protocol}; extraction strength of the reference answers, "
        "1 if all of an answer comes from the question and 0 if nothing does; 95 % bootstrap intervals over subjects.",
        "share: how much of its change a method was left, for each half of the people that chose one: the largest "
        f"that keeps tau of vanilla's extraction strength on every {retain} task. The numbers are of the other half.",
        f"kept: what is left of it there, of the {retain} task that keeps least. It can lie below tau, because other "
        "people chose the share.",
        "way to gold: how far the forget answers went from vanilla to the model that never saw them (1: all the way).",
    ]


def _rows(results: CalibrationResults, show: Callable[[Cell | None], str]) -> list[list[str]]:
    return [
        [
            "-" if line.tau is None else f"{line.tau:g}",
            line.model,
            ", ".join(f"{share:.3f}" for share in line.shares) or "-",
            f"{line.kept:.3f}",
            "-" if line.way_to_gold is None else f"{line.way_to_gold:.2f}",
            *map(show, line.cells),
        ]
        for line in results.lines
    ]


def _header(results: CalibrationResults) -> list[str]:
    return [*HEADER, *(f"{split} / {task}" for split, task in results.places)]


def _markdown(results: CalibrationResults) -> str:
    header = _header(results)
    table = markdown_rows([header, ["---"] * 2 + ["---:"] * (len(header) - 2), *_rows(results, text_cell)])
    title = f"# At equal retention: {results.manifest.title}"
    return f"{title}\n\n{table}\n\n" + "\n".join(f"- {note}" for note in notes(results)) + "\n"


def _latex(results: CalibrationResults) -> str:
    header = _header(results)
    body = [" & ".join(map(escaped, header)) + r" \\", r"\midrule"]
    body += [" & ".join([*map(escaped, row[:5]), *row[5:]]) + r" \\" for row in _rows(results, latex_cell)]
    return latex_tabular("ll" + "r" * (len(header) - 2), body, notes(results))


def _csv(results: CalibrationResults) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([name.replace(" ", "_") for name in HEADER] + ["split", "task", "mean", "low", "high", "items"])
    for line in results.lines:
        for (split, task), cell in zip(results.places, line.cells, strict=True):
            if cell is not None:
                writer.writerow([*_numbers(line), split, task, cell.mean, cell.low, cell.high, cell.items])
    return buffer.getvalue()


def _numbers(line: CalibrationLine) -> list[object]:
    return [line.tau, line.model, " ".join(map(str, line.shares)), line.kept, line.way_to_gold]
