"""Tables of a benchmark run as Markdown, LaTeX or CSV, made from its records."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Literal

from kvw.bench.further import UTILITY_SETS, Cell
from kvw.bench.record import PlantingPart
from kvw.bench.results import Choice, Results

Format = Literal["markdown", "latex", "csv"]
FORMATS: dict[Format, str] = {"markdown": "md", "latex": "tex", "csv": "csv"}
"""Endings of files."""


def bench_table(results: Results, form: Format) -> str:
    """The table of a run.

    Args:
        results: From :func:`kvw.bench.results.read_results`.
        form: Markdown and LaTeX show means and intervals and say below what was chosen; CSV has every number in a
            line of its own.
    """
    makers: dict[str, Callable[[Results], str]] = {"markdown": _markdown, "latex": _latex, "csv": _csv}
    return makers[form](results)


def notes(results: Results) -> list[str]:
    """What a reader of the table must know: protocol, choices, outcomes, distance to the gold model."""
    manifest = results.manifest
    both = manifest.recipe["choice"]["folds"] == "both"
    folds = "each half's settings chosen on the other half" if both else "settings chosen on one half"
    lines = [
        f"{manifest.benchmark}, {manifest.setting}; {manifest.protocol}; methods got {manifest.forget} forget and "
        f"{manifest.retain} retain examples; {folds}; 95 % bootstrap intervals over subjects."
    ]
    lines += [_planting(label, planting) for label, planting in results.planted.items()]
    lines += [_choice(choice, results) for choice in results.choices]
    for name, counts in results.outcomes.items():
        said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        lines.append(f"{name}, forget items: {said}.")
    for name, share in results.relative_forgetting.items():
        if share is not None:
            lines.append(f"{name}: {share:.3f} of vanilla's forget score is gone.")
    if results.hypervolume:
        areas = ", ".join(f"{name} {area:.3f}" for name, area in results.hypervolume.items())
        lines.append(f"Hypervolume of all settings (forgotten x kept; 1: everything forgotten at no cost): {areas}.")
    for name, distance in results.distance_to_gold.items():
        quality = results.forget_quality.get(name)
        test = "" if quality is None else f"; forget quality (KS against gold) p = {quality:.3g}"
        lines.append(f"{name}: {distance:.3f} from the gold model on the forget split{test}.")
    if results.model_utility:
        areas = ", ".join(f"{name} {value:.3f}" for name, value in results.model_utility.items())
        sets = ", ".join(UTILITY_SETS[manifest.benchmark])
        lines.append(
            f"Model utility (harmonic mean of probability, ROUGE-L recall and truth ratio on {sets}): {areas}."
        )
    if manifest.unusable:
        lines.append(f"{manifest.unusable} entries of the data could not be used.")
    if manifest.not_computed:
        lines.append(f"Named by the benchmark and not computed: {', '.join(manifest.not_computed)}.")
    return lines


def _planting(label: str, planting: PlantingPart) -> str:
    lora = planting.settings["lora"]
    how = f"LoRA of rank {lora['rank']}" if lora else "all weights of " + ", ".join(planting.settings["parts"])
    return (
        f"{label}: {planting.base} trained on {planting.examples} examples, {how}, "
        f"{planting.settings['epochs']} epochs of batches of {planting.settings['batch_size']}, learning rate "
        f"{planting.settings['learning_rate']:g}; loss per answer token from {planting.losses[0]:.3f} to "
        f"{planting.losses[-1]:.3f}."
    )


def _choice(choice: Choice, results: Results) -> str:
    settings = ", ".join(f"{name} = {value}" for name, value in choice.settings.items()) or "defaults"
    wanted = results.manifest.recipe["choice"]["keep"]
    enough = "" if choice.kept_enough else f" (none of {choice.tried} kept {wanted:g})"
    return (
        f"{choice.method}, chosen on half {choice.chosen_on} among {choice.tried}: {settings}; "
        f"kept {choice.kept:.3f} of vanilla's retain score there{enough}."
    )


def _models(results: Results) -> list[str]:
    return list(dict.fromkeys(name for row in results.rows for name in row.cells))


def _lines(results: Results, show: Callable[[Cell | None], str]) -> list[list[str]]:
    models = _models(results)
    return [
        [row.split, row.task, row.metric.replace("_", " "), *(show(row.cells.get(name)) for name in models)]
        for row in (*results.rows, *results.further)
    ]


def _markdown(results: Results) -> str:
    header = ["split", "task", "metric", *_models(results)]
    table = markdown_rows([header, ["---"] * 3 + ["---:"] * (len(header) - 3), *_lines(results, text_cell)])
    return f"# {results.manifest.title}\n\n{table}\n\n" + "\n".join(f"- {note}" for note in notes(results)) + "\n"


def _latex(results: Results) -> str:
    header = ["split", "task", "metric", *_models(results)]
    rows = [header, *_lines(results, latex_cell)]
    body = [" & ".join(map(escaped, rows[0])) + r" \\", r"\midrule"]
    body += [" & ".join([*map(escaped, row[:3]), *row[3:]]) + r" \\" for row in rows[1:]]
    return latex_tabular("lll" + "r" * (len(header) - 3), body, notes(results))


def _csv(results: Results) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["split", "task", "modality", "metric", "model", "mean", "low", "high", "items"])
    for row in (*results.rows, *results.further):
        for name, cell in row.cells.items():
            place: Sequence[object] = (row.split, row.task, row.modality, row.metric, name)
            writer.writerow([*place, cell.mean, cell.low, cell.high, cell.items])
    return buffer.getvalue()


def markdown_rows(rows: Sequence[Sequence[str]]) -> str:
    """Rows of a Markdown table, its header and the line below it among them."""
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def latex_tabular(columns: str, body: Sequence[str], notes: Sequence[str]) -> str:
    """A LaTeX table between its rules.

    Args:
        columns: How each column is aligned.
        body: Lines between the rules.
        notes: Comments above it.
    """
    comments = "".join(f"% {note}\n" for note in notes)
    lines = [f"\\begin{{tabular}}{{{columns}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}"]
    return comments + "\n".join(lines) + "\n"


def text_cell(cell: Cell | None) -> str:
    """A mean with its interval, for Markdown; a dash if there is none."""
    if cell is None:
        return "-"
    interval = "" if cell.low is None or cell.high is None else f" [{cell.low:.3f}, {cell.high:.3f}]"
    return f"{cell.mean:.3f}{interval}"


def latex_cell(cell: Cell | None) -> str:
    """A mean with its interval, for LaTeX; a dash if there is none."""
    if cell is None:
        return "--"
    interval = "" if cell.low is None or cell.high is None else f" {{\\scriptsize [{cell.low:.3f}, {cell.high:.3f}]}}"
    return f"{cell.mean:.3f}{interval}"


def escaped(text: str) -> str:
    """Text as LaTeX takes it."""
    return text.replace("\\", r"\textbackslash{}").replace("_", r"\_").replace("%", r"\%").replace("&", r"\&")
