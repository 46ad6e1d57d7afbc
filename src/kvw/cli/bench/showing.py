"""What finished benchmark runs found: tables and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from kvw.cli.options import Force, Json, print_json
from kvw.errors import UserError
from kvw.output import check_output_file

Runs = Annotated[
    list[Path],
    Parameter(help="Run directories of kvw bench run; those that differ in the seed alone are put together."),
]
DRAWN_BY = b"kvw bench plot"
"""What pictures say of themselves."""
PICTURES = (".pdf", ".svg", ".png")


def table(
    runs: Runs,
    /,
    *,
    format: Annotated[
        Literal["markdown", "text", "html", "latex", "csv", "json"], Parameter(help="Of the table.")
    ] = "markdown",
    json: Json = False,
) -> None:
    """Print the tables of finished runs, from their records; of several seeds one with the intervals over them."""
    from kvw.bench.together import read_comparisons
    from kvw.report import bench_tables as tables

    found = read_comparisons(runs)
    if json or format == "json":
        print_json(tables.json_text(found))
    elif format == "text":
        tables.print_tables(found)
    elif format == "html":
        print_json(tables.html_page(found))
    elif format == "csv":
        print(tables.csv_text(found), end="")
    else:
        print("\n".join(tables.bench_table(one).text(format) for one in found), end="")


def plot(
    runs: Runs,
    /,
    *,
    out: Annotated[Path, Parameter(help="File to write; its suffix says the form: .pdf, .svg or .png.")],
    kind: Annotated[
        Literal["tradeoff", "curves", "bars"],
        Parameter(
            help="tradeoff: what every setting forgets and keeps. curves: both over the values of --setting. bars: the "
            "table with its intervals."
        ),
    ] = "tradeoff",
    setting: Annotated[str, Parameter(help="With curves: the setting that is on the x axis, as in gamma.")] = "",
    force: Force = False,
) -> None:
    """Draw finished runs: methods against each other, a method over a setting, or tasks with intervals."""
    if out.suffix.lower() not in PICTURES:
        raise UserError(
            "The suffix of --out says how to draw.",
            found=out.suffix or "no suffix",
            do=f"end the name in {', '.join(PICTURES)}",
        )
    if (kind == "curves") != bool(setting):
        raise UserError(
            "Curves are drawn over a setting, and nothing else is.",
            found=f"--kind {kind}" + (f" --setting {setting}" if setting else " without --setting"),
            do="give both --kind curves and --setting, or neither",
        )
    _check_place(out, force=force)

    from kvw.bench.points import read_panels
    from kvw.bench.together import read_comparisons

    if kind == "bars":
        found = read_comparisons(runs)

        from kvw.report.bench_plots import bar_figure, save

        save(bar_figure(found), out)
    else:
        panels = read_panels(runs)

        from kvw.report.bench_plots import curve_figure, save, tradeoff_figure

        save(curve_figure(panels, setting) if setting else tradeoff_figure(panels), out)
    print(out)


def _check_place(out: Path, *, force: bool) -> None:
    """Find out whether the picture can be written; one that this command has drawn can be replaced.

    Raises:
        UserError: It cannot.
    """
    if force and out.is_file():
        if DRAWN_BY not in out.read_bytes():
            raise UserError(
                f"{out} was not drawn by this command, so --force does not replace it.", do="name another --out"
            )
        return
    check_output_file(out, force=False)
