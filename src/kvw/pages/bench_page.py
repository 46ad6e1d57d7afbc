"""The page of one benchmark run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvw.pages.frame import Verdict, page


def bench_page(
    title: str,
    sentences: Sequence[str],
    header: Sequence[str],
    tables: Mapping[str, Sequence[Sequence[str]]],
    notes: Sequence[str],
) -> str:
    """Tables of a benchmark run, for a reader without its files.

    Args:
        title: Of the run.
        sentences: What came out, in words; at least one.
        header: Titles of the columns.
        tables: Rows of texts by heading.
        notes: What a reader of the tables must know.

    Returns:
        One HTML file, see :func:`kvw.pages.frame.page`. It shows no question and no answer.
    """
    verdict = Verdict("unknown", "Benchmark", sentences)
    return page("bench.html", title=title, verdict=verdict, header=header, tables=tables, notes=notes)
