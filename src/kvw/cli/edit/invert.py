"""``kvw edit invert``."""

from __future__ import annotations

from kvw.cli.edit.options import EditFile, OutFile
from kvw.cli.options import Force


def invert(edit: EditFile, *, out: OutFile, force: Force = False) -> None:
    """Make the edit that undoes another one, for float32 weights that have it in them.

    Weights of a lower precision do not come back: keep the original checkpoint.
    """
    from kvw.runs.first_checks import check_edit_files, check_edit_output

    check_edit_output(out, [edit], force=force)
    check_edit_files([edit])

    from kvw.edits import invert as run
    from kvw.report.tables import print_written_edit
    from kvw.runs.edits import derive

    print_written_edit(derive(run, [edit], out, force=force), out)
