"""``kvw apply``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from kvw.cli.options import Force, Model, OtherWeights, check_output, find_model, quiet_libraries


def apply(
    edit: Annotated[Path, Parameter(help="Edit file from kvw erase.")],
    model: Model,
    *,
    out: Annotated[Path, Parameter(help="Checkpoint folder to write.")],
    untouched: Annotated[
        Literal["copy", "hardlink", "reflink"],
        Parameter(
            help="Weight files without an edited matrix: copy them; hardlink them (no room needed, but source and OUT "
            "then share one file); or reflink them (shared until one of the two is changed; needs btrfs or XFS)."
        ),
    ] = "copy",
    other_weights: OtherWeights = False,
    force: Force = False,
) -> None:
    """Write an edit into the weights of a checkpoint, without loading the model.

    OUT appears when every byte has been read back and compared. If the command is interrupted, run it again: it goes on
    with the weight files that were finished. Other weights than those that the edit was made on are refused, and so are
    weights that have it in them already.
    """
    from kvw.runs.first_checks import check_edit_files

    check_edit_files([edit])
    checkpoint = find_model(model)
    check_output(out, force=force, keep=[checkpoint.folder, edit])
    quiet_libraries()

    from kvw.cli.console import ConsoleReporter
    from kvw.edits import load_edit
    from kvw.report.tables import print_applied
    from kvw.runs.apply import apply as run
    from kvw.runs.apply import scores_beside

    reporter, loaded = ConsoleReporter(), load_edit(edit)
    scores = scores_beside(edit, loaded, reporter)
    found = run(
        loaded,
        checkpoint,
        out,
        reporter,
        untouched=untouched,
        scores=scores,
        other_weights=other_weights,
        force=force,
        keep=[edit],
    )
    print_applied(found, out)
