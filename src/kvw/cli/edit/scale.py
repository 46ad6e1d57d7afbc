"""``kvw edit scale``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.edit.options import EditFile, OutFile
from kvw.cli.options import Force
from kvw.errors import UserError


def scale(
    edit: EditFile,
    *,
    strength: Annotated[float, Parameter(help="From 0, the original model, to 1, the edit as it is.")],
    out: OutFile,
    force: Force = False,
) -> None:
    """Weaken an edit: each gate g becomes g^STRENGTH."""
    from kvw.runs.first_checks import check_edit_files, check_edit_output

    if not 0 <= strength <= 1:  # NaN is refused too
        raise UserError("strength must be a number from 0 to 1.", found=str(strength))
    check_edit_output(out, [edit], force=force)
    check_edit_files([edit])

    from kvw.console import ConsoleReporter
    from kvw.edits import scale as run
    from kvw.report.tables import print_written_edit
    from kvw.runs.edits import derive

    scaled = derive(partial(run, strength=strength), [edit], out, force=force)
    print_written_edit(scaled, out)
    weakened = [layer for layer in scaled.describe() if layer.weakened]
    if 0 < strength < 1 and weakened and all(layer.total_exponent and layer.mean_gate == 0 for layer in weakened):
        ConsoleReporter().warn(
            "Every gate is 0 and stays 0 at any strength above 0, so the scaled edit does what the whole one does. "
            f"To weaken it: kvw edit mix {edit} --share {strength:g} --out FILE"
        )
