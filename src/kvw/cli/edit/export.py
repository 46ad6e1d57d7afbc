"""``kvw edit export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from kvw.cli.edit.options import EditFile
from kvw.cli.options import Force, Model, OtherWeights, check_output, find_model, quiet_libraries


def export(
    edit: EditFile,
    model: Model,
    *,
    format: Annotated[
        Literal["ia3", "lora"],
        Parameter(
            help="lora: for edits by directions, small (of their rank). ia3: for edits by gates, small and exact; "
            "as lora these are about as large as the value matrices."
        ),
    ],
    out: Annotated[Path, Parameter(help="Adapter folder to write.")],
    other_weights: OtherWeights = False,
    force: Force = False,
) -> None:
    """Write an edit as a PEFT adapter for the original model."""
    from kvw.runs.first_checks import check_edit_files

    check_edit_files([edit])
    checkpoint = find_model(model, weights=False)
    check_output(out, force=force, keep=[checkpoint.folder, edit])
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.runs.edits import export as run

    run(edit, checkpoint, format, out, ConsoleReporter(), other_weights=other_weights, force=force)
    print(f"The adapter is in {out}. Use it with: peft.PeftModel.from_pretrained(model, {str(out)!r})")
