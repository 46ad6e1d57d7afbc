"""``kvw verify``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kvw.cli.options import DATA_DEFAULTS, DataOptions, Json, print_result
from kvw.errors import UserError
from kvw.exit_codes import ExitCode
from kvw.quiet import quiet_libraries

if TYPE_CHECKING:
    from kvw.models.checkpoint import Checkpoint


def verify(
    evidence: Annotated[Path, Parameter(help="evidence.json of a run.")],
    *,
    public_key: Annotated[Path | None, Parameter(help="PEM file of the Ed25519 public key of who signed.")] = None,
    model: Annotated[str, Parameter(help="A model that is said to have the edit in it.")] = "",
    edit: Annotated[Path | None, Parameter(help="Edit file of the run.")] = None,
    original: Annotated[str, Parameter(help="The model that was edited: is the edit all that differs?")] = "",
    run: Annotated[Path | None, Parameter(help="Folder of the run: its record, samples, edit and model.")] = None,
    data: Annotated[
        list[Path] | None, Parameter(negative="", help="Data file of the run, on the machine of the run. Repeatable.")
    ] = None,
    read: DataOptions = DATA_DEFAULTS,
    json: Json = False,
) -> None:
    """Check evidence: its signature, the digests of everything that is named, and that the edit gives the model.

    Says what was checked and what was not. Ends with exit code 6 if something does not hold, or if no signature was
    checked. Writes nothing and loads no model.
    """
    reading = read.reading()
    if not (model or edit or original or run or data):
        raise UserError("Name what is to be held against the evidence.", do="add --model, --edit, --run or --data")
    for path in [evidence, *([edit] if edit else []), *([run] if run else []), *(data or [])]:
        if not path.exists():
            raise UserError(f"There is no {path}.", do="check the path")

    from kvw.evidence.keys import public_key as read_key
    from kvw.runs.verify import VerifyRequest
    from kvw.runs.verify import verify as look

    request = VerifyRequest(
        evidence=evidence,
        key=read_key(public_key) if public_key else None,
        model=_checkpoint(model),
        edit=edit,
        original=_checkpoint(original),
        run=run,
        data=data or [],
        reading=reading,
    )
    if original:
        quiet_libraries()  # which work the model out again

    from kvw.console import ConsoleReporter
    from kvw.report.verification import print_verification

    verification = look(request, ConsoleReporter())
    print_result(verification, print_verification, json=json)
    if not verification.holds:
        sys.exit(ExitCode.NOT_VERIFIED)


def _checkpoint(model: str) -> Checkpoint | None:
    """Where a model is; a folder is taken as it is, because its files may be what is wrong."""
    from kvw.models.checkpoint import Checkpoint, find_checkpoint

    if not model:
        return None
    folder = Path(model)
    return Checkpoint(folder, folder.resolve().name) if folder.is_dir() else find_checkpoint(model)
