"""``kvw edit anchor``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.edit.options import EditFile, OutFile
from kvw.cli.options import Force, Model, find_model, quiet_libraries


def anchor(
    edit: EditFile,
    anchor: Annotated[Path, Parameter(help="Edit file of training the same model on what must stay.")],
    model: Model,
    /,
    *,
    out: OutFile,
    times: Annotated[
        float, Parameter(help="An entry is taken back if it outweighs the anchor's by more than this.")
    ] = 5.0,
    force: Force = False,
) -> None:
    """Take back what a trained edit does against training on the retain set (SMFA)."""
    from kvw.runs.first_checks import check_edit_files, check_edit_output

    check_edit_output(out, [edit, anchor], force=force)
    check_edit_files([edit, anchor])
    checkpoint = find_model(model)
    quiet_libraries()

    from kvw.edits import anchor as run
    from kvw.models.loading import load_model
    from kvw.report.tables import print_written_edit
    from kvw.runs.edits import derive

    loaded = load_model(checkpoint)
    print_written_edit(derive(partial(run, model=loaded, times=times), [edit, anchor], out, force=force), out)
