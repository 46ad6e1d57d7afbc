"""Tables of benchmarks as Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kvw.bench.further import Cell
from kvw.files import write_text
from kvw.report.latex import comments, escaped

Format = Literal["markdown", "latex", "csv"]
FORMATS: dict[Format, str] = {"markdown": "md", "latex": "tex", "csv": "csv"}
"""Endings of files."""
Value = str | float | Cell | None
"""A text, a difference, a mean with its interval, or nothing."""


@dataclass(frozen=True)
class Sheet:
    """Tables with one header, and what to know about them.

    Args:
        title: What stands above them in Markdown.
        header: Names of the columns.
        texts: How many columns are aligned to the left.
        tables: Rows by heading; an empty heading is not shown.
        notes: What a reader must know.
        numbers: Rows of the CSV file, its header among them.
        latex: Another form of it for LaTeX; that of the tables if empty.
    """

    title: str
    header: Sequence[str]
    texts: int
    tables: Mapping[str, Sequence[Sequence[Value]]]
    notes: Sequence[str]
    numbers: Sequence[Sequence[object]]
    latex: str = ""

    def text(self, form: Format) -> str:
        """The content of a file of this form."""
        return {"markdown": self._markdown, "latex": self._latex, "csv": self._csv}[form]()

    def write(self, folder: Path, name: str) -> None:
        """Write a file of each form."""
        for form, ending in FORMATS.items():
            write_text(folder / f"{name}.{ending}", self.text(form))

    @property
    def plain(self) -> dict[str, list[list[str]]]:
        """The tables in texts."""
        return {heading: [list(map(cell_text, row)) for row in rows] for heading, rows in self.tables.items()}

    def _markdown(self) -> str:
        parts = [f"# {self.title}"]
        for heading, rows in self.plain.items():
            parts += [f"## {heading}"] if heading else []
            parts.append(markdown_table(self.header, rows, self.texts))
        return "\n\n".join([*parts, "\n".join(f"- {note}" for note in self.notes)]) + "\n"

    def _latex(self) -> str:
        if self.latex:
            return self.latex
        body = [" & ".join(map(tex_cell, self.header))]
        for heading, rows in self.tables.items():
            body.append(r"\midrule")
            body += [rf"\multicolumn{{{len(self.header)}}}{{l}}{{{tex_cell(heading)}}}"] if heading else []
            body += [" & ".join(map(tex_cell, row)) for row in rows]
        lines = [line if line == r"\midrule" else rf"{line} \\" for line in body]
        columns = "l" * self.texts + "r" * (len(self.header) - self.texts)
        lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"]
        return comments(self.notes) + "\n".join(lines) + "\n"

    def _csv(self) -> str:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows(self.numbers)
        return buffer.getvalue()


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> str:
    """A Markdown table whose first ``texts`` columns are aligned to the left, and the others to the right."""
    rule = ["---"] * texts + ["---:"] * (len(header) - texts)
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def cell_text(value: Value) -> str:
    """A value in three digits, with its interval if there is one."""
    if isinstance(value, Cell):
        interval = "" if value.low is None or value.high is None else f" [{value.low:.3f}, {value.high:.3f}]"
        return f"{value.mean:.3f}{interval}"
    return "-" if value is None else f"{value:+.3f}" if isinstance(value, float) else value


def tex_cell(value: Value) -> str:
    """The same as LaTeX."""
    if isinstance(value, Cell) and value.low is not None and value.high is not None:
        return f"{value.mean:.3f} {{\\scriptsize [{value.low:.3f}, {value.high:.3f}]}}"
    if isinstance(value, float):
        return f"${value:+.3f}$"
    if isinstance(value, str):
        return escaped(value)
    return "--" if value is None else cell_text(value)
