"""``kvw bench cost``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import quiet_libraries


def cost(
    recipe: Annotated[Path, Parameter(help="Recipe (TOML), see recipes/cost/.")],
    *,
    out: Annotated[Path, Parameter(help="Directory for the numbers. The same recipe goes on where it stopped.")],
) -> None:
    """Measure time, memory and FLOPs of every method on a model of random weights, and print the ratios."""
    from kvw.bench.cost.recipe import check_config, read_cost_recipe

    read = read_cost_recipe(recipe)
    check_config(read.model.config)
    quiet_libraries()

    from kvw.bench.cost.run import compare_costs
    from kvw.console import ConsoleReporter
    from kvw.files import write_text
    from kvw.report.cost_tables import cost_tables

    tables = cost_tables(compare_costs(read, out, ConsoleReporter()))
    write_text(out / "costs.md", tables)
    print(tables, end="")
