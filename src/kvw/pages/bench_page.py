"""The page of one benchmark run."""

from __future__ import annotations

from collections.abc import Sequence

from kvw.pages.frame import Verdict, page


def bench_page(
    title: str,
    sentences: Sequence[str],
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]],
    notes: Sequence[str],
) -> str:
    """Tables of benchmark runs, for a reader without their files.

    Args:
        title: Of the page.
        sentences: What came out, in words; at least one.
        tables: Heading (empty for the only one), titles of the columns, and rows of texts.
        notes: What a reader of the tables must know.

    Returns:
        One HTML file, see :func:`kvw.pages.frame.page`. It shows no question and no answer.
    """
    verdict = Verdict("unknown", "Benchmark", sentences)
    return page("bench.html", title=title, verdict=verdict, tables=tables, notes=notes)
