"""``kvw report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import ShowExamples
from kvw.quiet import quiet_libraries


def report(
    run: Annotated[Path, Parameter(help="What kvw erase, kvw audit or kvw bench run wrote to its --out.")],
    *,
    show_examples: ShowExamples = False,
) -> None:
    """Make the page of a finished run, audit or benchmark again: report.html, of an audit audit.html."""
    from kvw.bench.folders import MANIFEST, run_folders
    from kvw.runs.first_checks import check_report_folder

    benchmarks = [folder for folder in run_folders(run) if (folder / MANIFEST).is_file()]
    if not benchmarks:
        check_report_folder(run)
    quiet_libraries()

    if benchmarks:
        from kvw.bench.together import read_comparisons
        from kvw.files import write_text
        from kvw.report.bench_tables import bench_report

        for folder in benchmarks:
            (found,) = read_comparisons([folder])
            write_text(folder / "report.html", bench_report(found))
            print(folder / "report.html")
        return

    from kvw.runs.reporting import report as write

    print(write(run, show_examples=show_examples))
