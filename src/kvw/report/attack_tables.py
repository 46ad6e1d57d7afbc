"""Tables of attacks on a benchmark run as Markdown, LaTeX or CSV, made from records."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from kvw.bench.attacks.plan import ATTACKS, BEFORE
from kvw.bench.attacks.results import AttackLine, AttackResults
from kvw.bench.further import Cell
from kvw.report.bench_tables import Format, escaped, latex_cell, latex_tabular, markdown_rows, text_cell

Measure = tuple[str, Callable[[AttackLine], Cell | float | None]]
CELLS = ("forget", "forget_share", "retain", "retain_share", "extraction")
NUMBERS = ("beyond_gold", "first_loss", "last_loss", "surviving")


def attack_table(results: AttackResults, form: Format) -> str:
    """The tables of the attacks: a row for each model, a column for each attack.

    Args:
        results: From :func:`kvw.bench.attacks.run.attack`.
        form: Markdown and LaTeX show shares of vanilla's scores and what to know about them; CSV has every number.
    """
    makers: dict[Format, Callable[[AttackResults], str]] = {"markdown": _markdown, "latex": _latex, "csv": _csv}
    return makers[form](results)


def notes(results: AttackResults) -> list[str]:
    """What a reader of the tables must know."""
    manifest = results.manifest
    lines = [
        f"{manifest.benchmark}, {manifest.setting}; {manifest.protocol}; scores are shares of vanilla's before any "
        "attack, on the same items; 95 % bootstrap intervals over subjects. What gold comes to know under an attack "
        "is not recovered knowledge."
    ]
    names = dict.fromkeys(name for column in results.columns if (name := column.split()[0]) != BEFORE)
    lines += [f"{name}: {ATTACKS[name]}." for name in names]
    if results.learning_rate is not None:
        lines.append(f"Relearning trains all weights of the language part at a rate of {results.learning_rate:g}.")
    lines += [
        f"{line.model}, {line.attack}: training loss {line.first_loss:.3f} in the first step, {line.last_loss:.3f} in "
        "the last."
        for line in results.lines
        if line.first_loss is not None and line.last_loss is not None
    ]
    lines += [
        f"{line.model}, {line.attack}: {line.surviving:.3f} of the edit is left."
        for line in results.lines
        if line.surviving is not None
    ]
    return lines


def _measures(results: AttackResults) -> list[Measure]:
    """The measures that have a number."""
    retain = results.retain_task.replace("/", " / ")
    measures: list[Measure] = [
        ("Share of vanilla's forget score", lambda line: line.forget_share),
        ("What came back beyond gold", lambda line: line.beyond_gold),
        (f"Share of vanilla's score on {retain}", lambda line: line.retain_share),
        ("Extraction strength of the forget answers", lambda line: line.extraction),
    ]
    return [one for one in measures if any(one[1](line) is not None for line in results.lines)]


def _rows(results: AttackResults, measure: Measure, show: Callable[[Cell | float | None], str]) -> list[list[str]]:
    values = {(line.model, line.attack): measure[1](line) for line in results.lines}
    models = dict.fromkeys(line.model for line in results.lines)
    return [[model, *(show(values[model, column]) for column in results.columns)] for model in models]


def _markdown(results: AttackResults) -> str:
    parts = [f"# Attacks: {results.manifest.title}"]
    for measure in _measures(results):
        header = ["model", *results.columns]
        lines = [header, ["---", *["---:"] * len(results.columns)], *_rows(results, measure, _text)]
        parts += [f"## {measure[0]}", markdown_rows(lines)]
    parts.append("\n".join(f"- {note}" for note in notes(results)))
    return "\n\n".join(parts) + "\n"


def _latex(results: AttackResults) -> str:
    header = ["model", *results.columns]
    body = [" & ".join(map(escaped, header)) + r" \\"]
    for measure in _measures(results):
        body += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{{escaped(measure[0])}}} \\"]
        body += [" & ".join([escaped(row[0]), *row[1:]]) + r" \\" for row in _rows(results, measure, _tex)]
    return latex_tabular("l" + "r" * len(results.columns), body, notes(results))


def _csv(results: AttackResults) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    ends = ("mean", "low", "high", "items")
    writer.writerow(["model", "attack", *(f"{name}_{end}" for name in CELLS for end in ends), *NUMBERS])
    for line in results.lines:
        cells = [getattr(getattr(line, name), end, None) for name in CELLS for end in ends]
        writer.writerow([line.model, line.attack, *cells, *(getattr(line, name) for name in NUMBERS)])
    return buffer.getvalue()


def _text(value: Cell | float | None) -> str:
    return f"{value:+.3f}" if isinstance(value, float) else text_cell(value)


def _tex(value: Cell | float | None) -> str:
    return f"${value:+.3f}$" if isinstance(value, float) else latex_cell(value)
