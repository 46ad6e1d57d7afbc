"""``kvw register export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.register.options import DEFAULT, File
from kvw.errors import UserError


def export(
    *,
    out: Annotated[
        Path, Parameter(help="File to write: .csv with a line for each request, or .json with all entries.")
    ],
    file: File = DEFAULT,
) -> None:
    """Write the register for others, with its head."""
    if out.suffix not in (".csv", ".json"):
        raise UserError("An export ends in .csv or .json.", found=str(out), do="name it so")
    from kvw.output import check_output_file

    check_output_file(out, force=False, keep=[file])

    from kvw.files import write_text
    from kvw.register.chain import read
    from kvw.register.export import exported

    entries = read(file)
    write_text(out, exported(entries, out.suffix))
    print(f"{len(entries)} entries are in {out}; head {entries[-1].head if entries else 'none'}")
