"""``kvw edit mix``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.edit.options import EditFile, OutFile
from kvw.cli.options import Force
from kvw.errors import UserError


def mix(
    edit: EditFile,
    *,
    share: Annotated[float, Parameter(help="From 0, the original model, to 1, the edit as it is.")],
    out: OutFile,
    force: Force = False,
) -> None:
    """Weaken an edit by mixing the edited weights with the original ones: each gate g becomes 1 - SHARE + SHARE g.

    This weakens gates of 0, too, which kvw edit scale cannot.
    """
    from kvw.runs.first_checks import check_edit_files, check_edit_output

    if not 0 <= share <= 1:  # NaN is refused too
        raise UserError("share must be a number from 0 to 1.", found=str(share))
    check_edit_output(out, [edit], force=force)
    check_edit_files([edit])

    from kvw.edits import mix as run
    from kvw.report.tables import print_written_edit
    from kvw.runs.edits import derive

    print_written_edit(derive(partial(run, share=share), [edit], out, force=force), out)
