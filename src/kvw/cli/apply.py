"""``kvw apply``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from kvw.cli.options import Force, ModelOrGguf, OtherWeights, Strict, check_output, end_strictly, find_model, is_gguf
from kvw.errors import UserError
from kvw.quiet import quiet_libraries

Untouched = Annotated[
    Literal["copy", "hardlink", "reflink"],
    Parameter(
        help="Weight files without an edited matrix: copy them; hardlink them (no room needed, but source and OUT then "
        "share one file); or reflink them (shared until one of the two is changed; needs btrfs or XFS)."
    ),
]


def apply(
    edit: Annotated[Path, Parameter(help="Edit file from kvw erase.")],
    model: ModelOrGguf,
    *,
    out: Annotated[Path, Parameter(help="Checkpoint folder to write; of a GGUF file, the file to write.")],
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

    Of a GGUF file the edited matrices are stored again in the types that they have. All other bytes stay.
    """
    from kvw.runs.first_checks import check_edit_files

    check_edit_files([edit])
    if is_gguf(model):
        _apply_to_gguf(edit, Path(model), out, untouched, check, force, other_weights=other_weights, strict=strict)
        return
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


def _apply_to_gguf(
    edit: Path, model: Path, out: Path, untouched: str, check: bool, force: bool, *, other_weights: bool, strict: bool
) -> None:
    """Write an edit into a GGUF file.

    Raises:
        UserError: An option is for checkpoints only, or see :func:`kvw.runs.gguf.apply_gguf`.
    """
    from kvw.output import check_output_file
    from kvw.runs.first_checks import check_gguf_files

    for option, given in {"--untouched": untouched != "copy", "--no-check": not check, "--force": force}.items():
        if given:
            raise UserError(f"{option} is for checkpoints, and {model.name} is a GGUF file.", do="leave it out")
    check_gguf_files(model, out)
    check_output_file(out, force=False, keep=[model, edit])
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.edits import load_edit
    from kvw.progress import remembering
    from kvw.report.tables import print_applied_gguf
    from kvw.runs.gguf import apply_gguf

    with remembering(ConsoleReporter()) as reporter:
        applied = apply_gguf(load_edit(edit), model, out, reporter, other_weights=other_weights, keep=(edit,))
    print_applied_gguf(applied, out)
    end_strictly(strict, reporter.warnings)
