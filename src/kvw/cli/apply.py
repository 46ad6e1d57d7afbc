"""``kvw apply``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from kvw.cli.options import (
    Force,
    Model,
    OtherWeights,
    Strict,
    check_output,
    end_strictly,
    find_model,
    quiet_libraries,
)

Untouched = Annotated[
    Literal["copy", "hardlink", "reflink"],
    Parameter(
        help="Weight files without an edited matrix: copy them; hardlink them (no room needed, but source and OUT then "
        "share one file); or reflink them (shared until one of the two is changed; needs btrfs or XFS)."
    ),
]


def apply(
    edit: Annotated[Path, Parameter(help="Edit file from kvw erase.")],
    model: Model,
    *,
    out: Annotated[Path, Parameter(help="Checkpoint folder to write.")],
    untouched: Untouched = "copy",
    other_weights: OtherWeights = False,
    check: Annotated[
        bool,
        Parameter(
            negative="--no-check",
            help="Load MODEL and then OUT when it is written, and see whether OUT still writes ordinary language. "
            "Takes the time of loading both and of 20 short sentences, and as much memory as the model has.",
        ),
    ] = True,
    force: Force = False,
    strict: Strict = False,
) -> None:
    """Write an edit into the weights of a checkpoint.

    OUT appears when every byte has been read back and compared; for that the model is not loaded. If the command is
    interrupted, run it again: it goes on with the weight files that were finished. Other weights than those that the
    edit was made on are refused, and so are weights that have it in them already.
    """
    from kvw.runs.first_checks import check_edit_files

    check_edit_files([edit])
    checkpoint = find_model(model)
    check_output(out, force=force, keep=[checkpoint.folder, edit])
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.progress import remembering
    from kvw.report.tables import print_applied
    from kvw.runs.python import apply as run

    with remembering(ConsoleReporter()) as reporter:
        applied = run(
            edit,
            checkpoint,
            out=out,
            untouched=untouched,
            other_weights=other_weights,
            check=check,
            force=force,
            reporter=reporter,
        )
    print_applied(applied, out)
    end_strictly(strict, reporter.warnings)
