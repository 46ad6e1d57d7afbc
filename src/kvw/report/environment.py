"""What kvw runs on, as tables on stdout."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvw.runs.environment import Devices, Environment

MEBI = 2**20


def print_environment(found: Environment) -> None:
    """Versions, with a mark where they are outside of what was tested, and the cache."""
    console = Console(highlight=False, emoji=False, markup=False, soft_wrap=True)
    console.print(f"kvw {found.kvw}, Python {found.python}, {found.platform}")
    table = Table("package", "version", "tested with", "", box=None, padding=(0, 2, 0, 0))
    for package in found.packages:
        if package.version is not None:
            tested = f"{package.oldest} to {package.newest}"
            table.add_row(package.name, package.version, tested, Text(package.verdict, style="yellow"))
    console.print(table)
    missing = [package.name for package in found.packages if package.version is None]
    if missing:
        console.print(f"not installed: {', '.join(missing)}")
    cache = found.cache
    console.print(f"cache: {cache.folder} ({cache.files} files, {cache.size / MEBI:.1f} MiB)")


def print_devices(found: Devices) -> None:
    """What torch can compute on, or why it cannot."""
    console = Console(highlight=False, emoji=False, markup=False, soft_wrap=True)
    for name in found.names:
        console.print(name)
    if found.error:
        console.print(f"torch cannot be loaded: {found.error}")
    console.print(f"(torch was loaded in {found.seconds:.1f} s)")
