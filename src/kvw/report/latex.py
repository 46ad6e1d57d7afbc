"""Tables for LaTeX with booktabs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

SPECIAL = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "\n": " ",
        "\r": " ",
    }
)


def escaped(text: str) -> str:
    """A text that LaTeX shows as it is; a line break becomes a space."""
    return text.translate(SPECIAL)


def bold(text: str) -> str:
    """LaTeX in bold."""
    return rf"\textbf{{{text}}}"


def comments(notes: Sequence[str]) -> str:
    """Lines that LaTeX passes over."""
    return "".join(f"% {' '.join(note.split())}\n" for note in notes)


def tabular(header: Sequence[tuple[str, str]], groups: Sequence[Sequence[Sequence[str]]]) -> str:
    """A table with a first column of names, and columns under common headings.

    Args:
        header: Heading and title of each column behind the first; neighbours with one heading share it. Escaped here.
        groups: Rows of cells that are LaTeX already; between two groups is a line.
    """
    spans: list[tuple[str, int]] = [
        (heading, len(list(columns))) for heading, columns in groupby(header, key=lambda column: column[0])
    ]
    above = "".join(rf" & \multicolumn{{{width}}}{{c}}{{{escaped(heading)}}}" for heading, width in spans)
    rules, place = [], 2
    for _, width in spans:
        rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
        place += width
    titles = "".join(f" & {escaped(title)}" for _, title in header)
    body = "\n\\midrule\n".join("\n".join(rf"{' & '.join(row)} \\" for row in rows) for rows in groups if rows)
    lines = [
        rf"\begin{{tabular}}{{l{'r' * len(header)}}}",
        r"\toprule",
        rf"{above.strip()} \\",
        " ".join(rules),
        rf"{titles.strip()} \\",
        r"\midrule",
        body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"
