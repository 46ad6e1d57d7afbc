"""What a command finds out about its files before anything heavy is imported: a typing mistake costs no minute."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kvw.errors import UserError
from kvw.output import check_output_file

EDIT_SUFFIX = STATISTICS_SUFFIX = KEPT_SUFFIX = ".safetensors"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
STATISTICS_FORMAT = "kvw statistics"
"""How the format of a statistics file begins."""
KEPT_FORMAT = "kvw request"
"""The same of a request that is kept."""
EDIT_FORMAT = "kvw edit"
"""What the header of an edit file has an entry of; in files of earlier versions the format begins like that."""
WHOLE = "check that it is the right file; if it is, give an intact copy of it or make it again"


def is_file(path: Path) -> bool:
    """Whether there is such a file; no for what cannot be the name of one."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def check_edit_files(paths: Iterable[Path]) -> None:
    """Refuse files that are no edits by what their headers say; values are looked at when the edit is loaded.

    Raises:
        UserError: A file does not exist, cannot be read, or is no edit.
    """
    for path in paths:
        if not is_file(path):
            raise UserError(
                f"There is no edit file {path}.", do="make one with: kvw erase MODEL --forget F --retain R --out DIR"
            )
        metadata = file_metadata(path)
        format_ = metadata.get("format")
        if EDIT_FORMAT not in metadata and not str(format_).startswith(EDIT_FORMAT):
            raise UserError(
                f"{path} is not an edit file.",
                found=f"format {format_!r}",
                do="give the edit.safetensors that kvw erase has written",
            )


def check_edit_output(out: Path, inputs: Sequence[Path], *, force: bool) -> None:
    """Find out whether an edit file can be written.

    Raises:
        UserError: It has another ending, or see :func:`kvw.output.check_output_file`.
    """
    if out.suffix != EDIT_SUFFIX:
        raise UserError("An edit file ends in .safetensors.", found=str(out), do=f"name it {out.stem}.safetensors")
    check_output_file(out, force=force, keep=inputs, form=EDIT_FORMAT)


def check_adapter_folder(folder: Path) -> None:
    """Refuse a folder that lacks a file of a PEFT adapter.

    Raises:
        UserError: A file is missing.
    """
    missing = [name for name in ADAPTER_FILES if not is_file(folder / name)]
    if missing:
        raise UserError(
            f"{folder} is not a PEFT adapter.",
            found=f"no {' and no '.join(missing)}",
            do="name a folder that save_pretrained of PEFT or kvw edit export has written",
        )


def check_gguf_files(model: Path, out: Path) -> None:
    """Refuse what is no GGUF file by its first bytes, and an output that engines would not take for one.

    Raises:
        UserError: There is no such file, it is of another kind, or the output ends in something else.
    """
    if not is_file(model):
        raise UserError(f"There is no file {model}.", do="check the path")
    with model.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise UserError(f"{model} is no GGUF file.", found=f"it begins with {magic!r}", do="get an intact copy of it")
    if out.suffix != ".gguf":
        raise UserError("A GGUF file ends in .gguf.", found=str(out), do=f"name it {out.stem}.gguf")


def check_statistics_output(out: Path, data: Path, *, force: bool) -> None:
    """Find out whether a statistics file of some data can be written.

    Raises:
        UserError: It has another ending, or see :func:`kvw.output.check_output_file`.
    """
    if out.suffix != STATISTICS_SUFFIX:
        raise UserError("A statistics file ends in .safetensors.", found=str(out), do=f"name it {out.stem}.safetensors")
    check_output_file(out, force=force, keep=[data], form=STATISTICS_FORMAT)


def check_kept_output(out: Path, files: Sequence[Path], *, force: bool) -> None:
    """Find out whether what is kept of a request can be written.

    Raises:
        UserError: It has another ending, or see :func:`kvw.output.check_output_file`.
    """
    if out.suffix != KEPT_SUFFIX:
        raise UserError("A kept request ends in .safetensors.", found=str(out), do=f"name it {out.stem}.safetensors")
    check_output_file(out, force=force, keep=files, form=KEPT_FORMAT)


def check_samples_output(samples: Path | None) -> None:
    """Refuse to write samples over another file.

    Raises:
        UserError: There is such a file, or the place cannot be written.
    """
    if samples is not None:
        if samples.exists():
            raise UserError(f"{samples} exists.", do="name another file for --samples")
        check_output_file(samples, force=False)


def check_page_output(out: Path, inputs: Sequence[Path]) -> None:
    """Find out whether a page can be written.

    Raises:
        UserError: It has another ending, is there already, or see :func:`kvw.output.check_output_file`.
    """
    if out.suffix != ".html":
        raise UserError("A page ends in .html.", found=str(out), do=f"name it {out.stem}.html")
    check_output_file(out, force=False, keep=inputs)


def check_report_folder(folder: Path) -> None:
    """Refuse what has no report.

    Raises:
        UserError: There is neither ``run.json`` nor ``audit.json`` in it.
    """
    if not (is_file(folder / "run.json") or is_file(folder / "audit.json")):
        raise UserError(
            f"{folder} is no folder of a run, an audit or a benchmark.",
            found="none of run.json, audit.json and manifest.json in it",
            do="give the folder that kvw erase, kvw audit or kvw bench run wrote",
        )


def check_pictures(paths: Iterable[Path]) -> None:
    """Decode pictures once.

    Raises:
        UserError: One does not exist or cannot be decoded.
    """
    from kvw.data.images import load_image

    for path in paths:
        if not is_file(path):
            raise UserError(f"There is no picture {path}.", do="check the path")
        load_image(path, str(path))


def file_metadata(path: Path) -> dict[str, Any]:
    """The metadata in the header of a safetensors file: eight bytes for its length, then JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > path.stat().st_size - 8:
                found = "it ends before its header does"
                raise UserError(f"{path} is not a safetensors file.", found=found, do=WHOLE)
            header = json.loads(file.read(length))
    except OSError as error:
        raise UserError(f"{path} cannot be read.", found=str(error), do="check the file") from error
    except (ValueError, RecursionError) as error:
        found = "its header is not JSON"
        raise UserError(f"{path} is not a safetensors file.", found=found, do=WHOLE) from error
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else {}
