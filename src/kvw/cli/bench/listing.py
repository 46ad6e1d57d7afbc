"""``kvw bench ls``."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def ls() -> None:
    """List the benchmarks that recipes can name."""
    from kvw.bench.benchmarks import BENCHMARKS, get_benchmark

    table = Table()
    for title in ("name", "settings", "data", "licence"):
        table.add_column(title)
    for name in BENCHMARKS:
        benchmark = get_benchmark(name)
        table.add_row(name, ", ".join(benchmark.settings), benchmark.hub_id or "made on the spot", benchmark.licence)
    Console().print(table)
