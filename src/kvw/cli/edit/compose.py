"""``kvw edit compose``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.edit.options import OutFile
from kvw.cli.options import Force
from kvw.errors import UserError


def compose(
    *edits: Annotated[Path, Parameter(help="Edit files in the order in which they act, two or more.")],
    out: OutFile,
    force: Force = False,
) -> None:
    """Put edits of the same model together: one edit that does what all of them do."""
    from kvw.runs.first_checks import check_edit_files, check_edit_output

    if len(edits) < 2:
        raise UserError("Composing needs at least two edits.", found=str(len(edits)))
    check_edit_output(out, edits, force=force)
    check_edit_files(edits)

    from kvw.edits import compose as run
    from kvw.report.tables import print_written_edit
    from kvw.runs.edits import derive

    print_written_edit(derive(run, edits, out, force=force), out)
