"""``kvw data keep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import DATA_DEFAULTS, KINDS_OF_DATA, LOAD_DEFAULTS, DataOptions, Force, LoadOptions, find_model
from kvw.quiet import quiet_libraries


def keep(
    files: Annotated[list[Path], Parameter(negative="", help=f"What was forgotten: {KINDS_OF_DATA}. Repeatable.")],
    *,
    model: Annotated[str, Parameter(help="The original model, which the request was for.")],
    out: Annotated[Path, Parameter(help="File to write (.safetensors).")],
    edit: Annotated[
        Path | None,
        Parameter(
            help="The edit.safetensors of the run that has forgotten it. It is kept, too, and is in force when a later "
            "run chooses its strength."
        ),
    ] = None,
    key: Annotated[
        Path | None, Parameter(help="File with 32 bytes in Base64, by which what is kept is encrypted.")
    ] = None,
    read: DataOptions = DATA_DEFAULTS,
    load: LoadOptions = LOAD_DEFAULTS,
    force: Force = False,
) -> None:
    """Keep what later requests need of this one, so that its data can be deleted.

    kvw erase takes the file as --earlier. It holds no text, but who has it and the model can find out much of what was
    asked and answered: keep it secret.
    """
    from kvw.runs.earlier import keep as run
    from kvw.runs.earlier import key_in, read_named
    from kvw.runs.first_checks import check_edit_files, check_kept_output

    checkpoint = find_model(model, template_options=load.template_option)
    check_kept_output(out, [*files, *([edit] if edit else [])], force=force)
    reading = read.reading()
    read_named(files, reading)
    key_in(key)
    check_edit_files([edit] if edit else [])
    quiet_libraries()

    from kvw.console import ConsoleReporter

    kept = run(
        checkpoint,
        files,
        out,
        ConsoleReporter(),
        edit=edit,
        key=key,
        reading=reading,
        device=load.device,
        quantise=load.quantise,
    )
    secret = "Keep it secret." if key is None else f"Only {key} opens it: without the key it is lost."
    print(f"{out}: {kept.facts} facts about {kept.subjects} subjects, {kept.bytes / 1e6:,.1f} MB. {secret}")
    opening = "" if key is None else f" --earlier-key {key}"
    print(
        "Once a run has forgotten them, the data can be deleted. "
        f"Later: kvw erase {model} --forget FILE --earlier {out}{opening} --out DIR"
        + ("" if edit else " --set mu=0.5 (the edit is not kept, so a later run cannot choose its strength)")
    )
