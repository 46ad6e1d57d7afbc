"""``kvw edit export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from kvw.cli.edit.options import EditFile
from kvw.cli.options import Force, ModelOrGguf, OtherWeights, check_output, find_model, is_gguf, quiet_libraries
from kvw.errors import UserError

COMMANDS = {
    "vllm": "vllm serve {model} --enable-lora --max-lora-rank {rank} --lora-modules forget={out}",
    "sglang": "python -m sglang.launch_server --model-path {model} --enable-lora --lora-paths forget={out}",
}


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
    engine: Annotated[
        Literal["vllm", "sglang"] | None,
        Parameter(
            name="--for",
            help="Write a lora as this engine loads it: one rank for all matrices, out of those it has room for, and "
            "bfloat16.",
        ),
    ] = None,
    other_weights: OtherWeights = False,
    force: Force = False,
) -> None:
    """Write an edit as an adapter for the original model, for PEFT, an engine that serves adapters, or llama.cpp."""
    from kvw.runs.first_checks import check_edit_files

    check_edit_files([edit])
    if engine and format != "lora":
        raise UserError(f"--for {engine} is for adapters of --format lora.", found=f"--format {format}")
    if format == "gguf-lora":
        _export_for_gguf(edit, model, out, other_weights=other_weights, force=force)
        return
    checkpoint = find_model(model, weights=False)
    check_output(out, force=force, keep=[checkpoint.folder, edit])
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.runs.edits import export as run

    run(edit, checkpoint, format, out, ConsoleReporter(), engine=engine, other_weights=other_weights, force=force)
    if engine is None:
        print(f"The adapter is in {out}. Use it with: peft.PeftModel.from_pretrained(model, {str(out)!r})")
        return
    rank = json.loads((out / "adapter_config.json").read_bytes())["r"]
    print(f"The adapter is in {out}: rank {rank}. Use it with:")
    served = checkpoint.name if checkpoint.revision else checkpoint.folder
    print(f"  {COMMANDS[engine].format(model=served, out=out, rank=rank)}")


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
