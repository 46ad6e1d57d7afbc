"""``kvw edit import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.edit.options import OutFile
from kvw.cli.options import Force, Model, find_model, quiet_libraries


def import_(
    adapter: Annotated[
        Path, Parameter(help="Adapter folder: an IA3 on value projections, or a LoRA from kvw edit export.")
    ],
    model: Model,
    *,
    out: OutFile,
    force: Force = False,
) -> None:
    """Read a PEFT adapter as an edit."""
    from kvw.runs.first_checks import check_adapter_folder, check_edit_output

    check_adapter_folder(adapter)
    check_edit_output(out, [], force=force)
    checkpoint = find_model(model, weights=False)
    quiet_libraries()

    from kvw.report.tables import print_written_edit
    from kvw.runs.edits import import_adapter

    print_written_edit(import_adapter(adapter, checkpoint, out, force=force), out)
