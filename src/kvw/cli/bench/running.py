"""What is asked for: benchmarks, recipes, and their runs."""

from __future__ import annotations

import json as json_module
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from kvw.cli.bench.options import Device, Recipe
from kvw.cli.options import Json, find_model, print_json
from kvw.quiet import quiet_libraries


def ls(*, json: Json = False) -> None:
    """List the benchmarks that recipes can name."""
    from kvw.bench.benchmarks import BENCHMARKS, get_benchmark

    found = [get_benchmark(name) for name in BENCHMARKS]
    titles = ("name", "settings", "data", "licence")
    _show(
        titles,
        [
            (name, list(one.settings), one.hub_id or "made on the spot", one.licence)
            for name, one in zip(BENCHMARKS, found, strict=True)
        ],
        json=json,
    )


def recipes(*, json: Json = False) -> None:
    """List the recipes that ship with kvw, by the name that kvw bench run takes."""
    from kvw.bench.shipped import shipped_recipes, title_of

    _show(("name", "title"), [(name, title_of(path)) for name, path in shipped_recipes().items()], json=json)


def _show(titles: tuple[str, ...], rows: list[tuple[str | list[str], ...]], *, json: bool) -> None:
    if json:
        print_json(json_module.dumps([dict(zip(titles, row, strict=True)) for row in rows], indent=2))
        return
    table = Table()
    for title in titles:
        table.add_column(title)
    for row in rows:
        table.add_row(*(", ".join(cell) if isinstance(cell, list) else cell for cell in row))
    Console().print(table)


def validate(recipe: Recipe, *, json: Json = False) -> None:
    """Check a recipe without loading models or data, and say what it would do."""
    from kvw.bench.recipe import read_recipe
    from kvw.bench.shipped import find_recipe

    path = find_recipe(recipe)
    read = read_recipe(path)
    if json:
        print_json(read.model_dump_json(indent=2))
        return
    print(f"{path.name}: {read.title}")
    settings = ", ".join(filter(None, read.benchmark.setting)) or "its first setting"
    print(f"benchmark {read.benchmark.name}: {settings}")
    print("models: " + ", ".join(f"{role} {name}" for role, name in read.models_by_role.items()))
    if read.plant is not None:
        training = read.plant.training
        how = f"LoRA of rank {training.lora.rank}" if training.lora else "all weights"
        print(
            f"vanilla and gold are planted: {how}, epochs {training.epochs}, learning rate {training.learning_rate:g}"
        )
    settings_of: dict[str, int] = {}
    for part in read.method:
        settings_of[part.called] = settings_of.get(part.called, 0) + len(part.settings)
    for name, count in settings_of.items():
        print(f"method {name}: {count} settings to choose from")
    asked = 1 + (read.models_by_role.keys() != {"vanilla"}) + sum(len(part.settings) for part in read.method)
    runs = len(read.runs)
    print(f"{asked} models to ask in all" + (f" in each of {runs} runs (settings and seeds)" if runs > 1 else ""))


def run(
    recipe: Recipe,
    *,
    out: Annotated[Path, Parameter(help="Run directory. The same recipe goes on where it stopped.")],
    seed: Annotated[int | None, Parameter(help="Instead of the seeds in the recipe's benchmark part.")] = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Do everything a recipe asks for, and print the tables."""
    from kvw.bench.first_checks import check_same_recipe, find_models, run_places
    from kvw.bench.recipe import read_recipe
    from kvw.bench.shipped import find_recipe

    read = read_recipe(find_recipe(recipe))
    if seed is not None:
        read = read.with_seed(seed)
    for name, folder in run_places(read, out).items():
        check_same_recipe(folder, read.runs[name])
        find_models(read.runs[name], find_model)
    quiet_libraries()
    _quiet_datasets()

    from kvw.bench.run import run as run_recipe
    from kvw.bench.together import read_comparisons
    from kvw.console import ConsoleReporter
    from kvw.files import write_text
    from kvw.report.bench_tables import bench_report, bench_table, json_text

    folders = run_recipe(read, find_model, out, ConsoleReporter(), device=device)
    for folder in folders:
        (alone,) = read_comparisons([folder])
        bench_table(alone).write(folder, "table")
        write_text(folder / "report.html", bench_report(alone))
    found = read_comparisons(folders)
    if json:
        print_json(json_text(found))
    else:
        print("\n".join(bench_table(one).text("markdown") for one in found))


def _quiet_datasets() -> None:
    """Keep the bars of the package out of the terminal; where it is not installed, whatever needs it says so."""
    with suppress(ImportError):
        import_module("datasets").disable_progress_bars()
