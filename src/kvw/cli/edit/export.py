"""``kvw edit export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from kvw.cli.edit.options import EditFile
from kvw.cli.options import Force, ModelOrGguf, OtherWeights, check_output, find_model, is_gguf, quiet_libraries
from kvw.errors import UserError


def export(
    edit: EditFile,
    model: ModelOrGguf,
    *,
    format: Annotated[
        Literal["ia3", "lora", "gguf-lora"],
        Parameter(
            help="lora: for edits by directions, small (of their rank). ia3: for edits by gates, small and exact; "
            "as lora these are about as large as the value matrices. gguf-lora: for llama.cpp; MODEL is then the GGUF "
            "file that the adapter is for."
        ),
    ],
    out: Annotated[Path, Parameter(help="Adapter folder to write; of gguf-lora the file.")],
    other_weights: OtherWeights = False,
    force: Force = False,
) -> None:
    """Write an edit as an adapter for the original model, for PEFT or for llama.cpp."""
    from kvw.runs.first_checks import check_edit_files

    check_edit_files([edit])
    if format == "gguf-lora":
        _export_for_gguf(edit, model, out, other_weights=other_weights, force=force)
        return
    checkpoint = find_model(model, weights=False)
    check_output(out, force=force, keep=[checkpoint.folder, edit])
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.runs.edits import export as run

    run(edit, checkpoint, format, out, ConsoleReporter(), other_weights=other_weights, force=force)
    print(f"The adapter is in {out}. Use it with: peft.PeftModel.from_pretrained(model, {str(out)!r})")


def _export_for_gguf(edit: Path, model: str, out: Path, *, other_weights: bool, force: bool) -> None:
    """Write an adapter for a GGUF file.

    Raises:
        UserError: The model is none, ``force`` is given, or see :func:`kvw.runs.gguf.export_gguf_lora`.
    """
    from kvw.output import check_output_file
    from kvw.runs.first_checks import check_gguf_files

    if not is_gguf(model):
        raise UserError(
            "An adapter for llama.cpp is made for the GGUF file that it is used with.",
            found=model,
            do="name that file in place of MODEL",
        )
    if force:
        raise UserError("--force does not replace GGUF files, which have no mark of kvw.", do="name another --out")
    check_gguf_files(Path(model), out)
    check_output_file(out, force=False, keep=[Path(model), edit])
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.edits import load_edit
    from kvw.runs.gguf import export_gguf_lora

    size = export_gguf_lora(
        load_edit(edit), Path(model), out, ConsoleReporter(), other_weights=other_weights, keep=(edit,)
    )
    print(f"The adapter is in {out}: rank {size.rank}, {size.bytes:,} bytes.")
    print(f"Use it with: llama-server -m {model} --lora {out}")
