"""``kvw bench run``."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import find_model, quiet_libraries


def run(
    recipe: Annotated[Path, Parameter(help="Recipe (TOML).")],
    *,
    out: Annotated[Path, Parameter(help="Run directory. The same recipe goes on where it stopped.")],
    seed: Annotated[int | None, Parameter(help="Instead of the seed in the recipe's benchmark part.")] = None,
) -> None:
    """Do everything a recipe asks for, and print the tables."""
    from kvw.bench.first_checks import check_same_recipe, find_models, run_places
    from kvw.bench.recipe import read_recipe

    read = read_recipe(recipe)
    if seed is not None:
        read = read.with_seed(seed)
    for setting, folder in run_places(read, out).items():
        check_same_recipe(folder, read.runs[setting])
        find_models(read.runs[setting], find_model)
    quiet_libraries()
    _quiet_datasets()

    from kvw.bench.results import read_results
    from kvw.bench.run import run as run_recipe
    from kvw.console import ConsoleReporter
    from kvw.files import write_text
    from kvw.report.bench_tables import bench_report, bench_table

    for folder in run_recipe(read, find_model, out, ConsoleReporter()):
        results = read_results(folder)
        table = bench_table(results)
        table.write(folder, "table")
        write_text(folder / "report.html", bench_report(results))
        print(table.text("markdown"))


def _quiet_datasets() -> None:
    """Keep the bars of the package out of the terminal; where it is not installed, whatever needs it says so."""
    with suppress(ImportError):
        import_module("datasets").disable_progress_bars()
