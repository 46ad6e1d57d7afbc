"""``kvw apply``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import Force, Model, find_model


def apply(
    edit: Annotated[Path, Parameter(help="Edit file from kvw erase.")],
    model: Model,
    *,
    out: Annotated[Path, Parameter(help="Checkpoint folder to write.")],
    force: Force = False,
) -> None:
    """Write an edit into the weights of a checkpoint."""
    checkpoint = find_model(model)

    from kvw.cli.console import ConsoleReporter
    from kvw.edits import load_edit
    from kvw.runs.apply import apply as run

    run(load_edit(edit), checkpoint, out, ConsoleReporter(), force=force)
