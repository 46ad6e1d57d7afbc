"""``kvw edit``: what can be done with edit files."""

from __future__ import annotations

import json as json_
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from kvw.cli.launch import run_by_the_first
from kvw.cli.options import (
    Force,
    Json,
    Model,
    ModelOrGguf,
    OtherWeights,
    check_output,
    find_model,
    is_gguf,
    print_result,
)
from kvw.errors import UserError
from kvw.quiet import quiet_libraries

if TYPE_CHECKING:
    from kvw.edits import Edit

EditFile = Annotated[Path, Parameter(help="Edit file (.safetensors).")]
OutFile = Annotated[Path, Parameter(help="Edit file to write (.safetensors).")]
COMMANDS = {
    "vllm": "vllm serve {model} --enable-lora --max-lora-rank {rank} --lora-modules forget={out}",
    "sglang": "python -m sglang.launch_server --model-path {model} --enable-lora --lora-paths forget={out}",
}


def show(edit: EditFile, *, json: Json = False) -> None:
    """Print where an edit comes from and how much it weakens, layer by layer."""
    from kvw.runs.first_checks import check_edit_files

    check_edit_files([edit])

    from kvw.edits import load_edit
    from kvw.report.tables import print_edit
    from kvw.runs.edits import summarise

    print_result(summarise(load_edit(edit), edit), print_edit, json=json)


def diff(first: EditFile, second: EditFile, *, json: Json = False) -> None:
    """Compare two edits layer by layer: which knowledge vectors they weaken, and how alike."""
    from kvw.runs.first_checks import check_edit_files

    check_edit_files([first, second])

    from kvw.edits import diff as run
    from kvw.edits import load_edit
    from kvw.report.tables import print_difference

    print_result(run(load_edit(first), load_edit(second)), print_difference, json=json)


def compose(
    *edits: Annotated[Path, Parameter(help="Edit files in the order in which they act, two or more.")],
    out: OutFile,
    force: Force = False,
) -> None:
    """Put edits of the same model together: one edit that does what all of them do."""
    if len(edits) < 2:
        raise UserError(
            "Composing needs at least two edits.", found=str(len(edits)), do="name them in the order in which they act"
        )
    _check(edits, out, force)

    from kvw.edits import compose as run

    _derive(run, edits, out, force)


def scale(
    edit: EditFile,
    *,
    strength: Annotated[float, Parameter(help="From 0, the original model, to 1, the edit as it is.")],
    out: OutFile,
    force: Force = False,
) -> None:
    """Weaken an edit: each gate g becomes g^STRENGTH.

    Gates of 0 stay 0, and most edits of the default method have them: kvw edit mix weakens those, too.
    """
    _check_part("strength", strength)
    _check([edit], out, force)

    from kvw.console import ConsoleReporter
    from kvw.edits import scale as run

    scaled = _derive(partial(run, strength=strength), [edit], out, force)
    weakened = [layer for layer in scaled.describe() if layer.weakened]
    if 0 < strength < 1 and weakened and all(layer.total_exponent and layer.mean_gate == 0 for layer in weakened):
        ConsoleReporter().warn(
            "Every gate is 0 and stays 0 at any strength above 0, so the scaled edit does what the whole one does. "
            f"To weaken it: kvw edit mix {edit} --share {strength:g} --out FILE"
        )


def mix(
    edit: EditFile,
    *,
    share: Annotated[float, Parameter(help="From 0, the original model, to 1, the edit as it is.")],
    out: OutFile,
    force: Force = False,
) -> None:
    """Weaken an edit by mixing the edited weights with the original ones: each gate g becomes 1 - SHARE + SHARE g.

    This weakens gates of 0, too, which kvw edit scale cannot.
    """
    _check_part("share", share)
    _check([edit], out, force)

    from kvw.edits import mix as run

    _derive(partial(run, share=share), [edit], out, force)


def anchor(
    edit: EditFile,
    anchor: Annotated[Path, Parameter(help="Edit file of training the same model on what must stay.")],
    model: Model,
    /,
    *,
    out: OutFile,
    times: Annotated[
        float, Parameter(help="An entry is taken back if it outweighs the anchor's by more than this.")
    ] = 5.0,
    force: Force = False,
) -> None:
    """Take back what a trained edit does against training on the retain set (SMFA)."""
    _check([edit, anchor], out, force)
    checkpoint = find_model(model)
    quiet_libraries()

    from kvw.edits import anchor as run
    from kvw.models.loading import load_model

    _derive(partial(run, model=load_model(checkpoint), times=times), [edit, anchor], out, force)


def invert(edit: EditFile, *, out: OutFile, force: Force = False) -> None:
    """Make the edit that undoes another one, for float32 weights that have it in them.

    Weights of a lower precision do not come back: keep the original checkpoint.
    """
    _check([edit], out, force)

    from kvw.edits import invert as run

    _derive(run, [edit], out, force)


def _check_part(option: str, value: float) -> None:
    if not 0 <= value <= 1:  # NaN is refused too
        raise UserError(
            f"{option} must be a number from 0 to 1.",
            found=str(value),
            do=f"give --{option} 0.5 for instance; 1 is the edit as it is",
        )


def _check(edits: Sequence[Path], out: Path, force: bool) -> None:
    from kvw.runs.first_checks import check_edit_files, check_edit_output

    check_edit_output(out, edits, force=force)
    check_edit_files(edits)


def _derive(change: Callable[..., Edit], edits: Sequence[Path], out: Path, force: bool) -> Edit:
    from kvw.report.tables import print_written_edit
    from kvw.runs.edits import derive

    made = derive(change, edits, out, force=force)
    print_written_edit(made, out)
    return made


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
        raise UserError(
            f"--for {engine} is for adapters of --format lora.",
            found=f"--format {format}",
            do="give --format lora, or leave --for out",
        )
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
    rank = json_.loads((out / "adapter_config.json").read_bytes())["r"]
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


def import_(
    adapter: Annotated[
        Path, Parameter(help="Adapter folder: an IA3 on value projections, or a LoRA from kvw edit export.")
    ],
    model: Model,
    *,
    out: OutFile,
    force: Force = False,
) -> None:
    """Read a PEFT adapter as an edit."""
    from kvw.runs.first_checks import check_adapter_folder, check_edit_output

    check_adapter_folder(adapter)
    check_edit_output(out, [], force=force)
    checkpoint = find_model(model, weights=False)
    quiet_libraries()

    from kvw.report.tables import print_written_edit
    from kvw.runs.edits import import_adapter

    print_written_edit(import_adapter(adapter, checkpoint, out, force=force), out)


edit = App(name="edit", help="Look at edit files, put them together, undo them, and turn them into PEFT adapters.")
for verb in (show, diff, compose, scale, mix, anchor, invert, export):
    edit.command(run_by_the_first(verb))
edit.command(run_by_the_first(import_), name="import")
