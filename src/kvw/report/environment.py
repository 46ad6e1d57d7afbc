"""What kvw runs on, as tables on stdout."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from kvw.report.terminal import console
from kvw.runs.environment import Devices, Environment

MEBI = 2**20


def print_environment(found: Environment) -> None:
    """Versions, with a mark where they are outside of what was tested, and the cache."""
    screen = console(soft_wrap=True)
    screen.print(f"kvw {found.kvw}, Python {found.python}, {found.platform}")
    table = Table("package", "version", "tested with", "", box=None, padding=(0, 2, 0, 0))
    for package in found.packages:
        if package.version is not None:
            tested = f"{package.oldest} to {package.newest}"
            table.add_row(package.name, package.version, tested, Text(package.verdict, style="yellow"))
    screen.print(table)
    missing = [package.name for package in found.packages if package.version is None]
    if missing:
        screen.print(f"not installed: {', '.join(missing)}")
    cache = found.cache
    screen.print(f"cache: {cache.folder} ({cache.files} files, {cache.size / MEBI:.1f} MiB)")


def print_devices(found: Devices) -> None:
    """What torch can compute on, or why it cannot."""
    screen = console(soft_wrap=True)
    for name in found.names:
        screen.print(name)
    if found.error:
        screen.print(f"torch cannot be loaded: {found.error}")
    screen.print(f"(torch was loaded in {found.seconds:.1f} s)")
