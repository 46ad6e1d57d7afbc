"""Options that the verbs of ``kvw register`` share; imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

File = Annotated[Path, Parameter(help="The register, an SQLite file.")]
Number = Annotated[int, Parameter(help="Of the request.")]
DEFAULT = Path("register.sqlite")


def print_head(head: str) -> None:
    """Say by what the register is known now."""
    print(f"The register's head is now {head}")
