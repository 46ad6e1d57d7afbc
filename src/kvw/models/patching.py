"""Writing an edited checkpoint: the source's files byte for byte, but for the value matrices.

Every weight file is brought to the disk (fsync) and read back. Each byte outside the value matrices is compared with
the source's, each value matrix by SHA-256 with what was computed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor
from transformers.modeling_utils import str_to_torch_dtype

from kvw.errors import UserError
from kvw.files import FULL_DISK_ERRORS, existing_parent, file_digest
from kvw.models.companions import copy_companions, damaged
from kvw.models.comparing import Range, fill, first_difference, pieces
from kvw.models.headers import StoredTensor, read_header
from kvw.models.stored import StoredMatrix
from kvw.models.value_matrix import MatrixKey
from kvw.models.weight_files import weight_files
from kvw.partial import PartialDirectory
from kvw.progress import Progress
from kvw.strict import Strict

Untouched = Literal["copy", "hardlink", "reflink"]
Change = Callable[[Any, Tensor], Tensor]

WRITTEN_AT_A_TIME = 32 * 2**20
"""Bytes; operating systems take a few large pieces several times faster than many small ones."""
FICLONE = 0x40049409
"""The ioctl of Linux that makes a file share the blocks of another one until either is written to."""


class WrittenFile(Strict):
    """What was done for one weight file."""

    name: str
    size: int
    """Bytes."""
    tensors: int
    changed: int
    """Tensors that differ from the source on purpose; all others are byte-identical."""
    way: Untouched
    source_digest: str
    """SHA-256 of the source's file; empty unless it was asked for."""
    digest: str
    """SHA-256 of the file as written; empty unless the source's was asked for."""


def save_checkpoint(
    source: Path,
    folder: Path,
    stored: Mapping[MatrixKey | str, StoredMatrix],
    change: Change,
    *,
    untouched: Untouched = "copy",
    partial: PartialDirectory | None = None,
    known: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> list[WrittenFile]:
    """Copy a checkpoint and change its value matrices in the copy; every other byte of the weights stays.

    Needs memory for a few copies of one value matrix. What was written is read back and compared.

    Args:
        source: Folder of the checkpoint.
        folder: Existing directory to write into.
        stored: The matrices to change, from :func:`kvw.models.stored.locate`.
        change: Gives the new weight for the stored one, of the same shape and dtype, and leaves the given one as it is.
        untouched: What becomes of weight files that hold no value matrix to change.
        partial: Keeps note of finished files and knows those of earlier runs; its folder is ``folder``.
        known: SHA-256 of weight files of the source, as far as known; the others are computed on the way. None if
            nobody wants to know them.
        progress: Called with (done, total) in megabytes.

    Raises:
        UserError: What was read back is not what was written, the source changed meanwhile, a value matrix is stored
            quantised or becomes infinite or NaN, or a file cannot be linked.
        OSError: The disk is full or the folder cannot be written.
    """
    copy_companions(source, folder)
    notes = partial.finished() if partial else {}
    written = {name: WrittenFile.model_validate_json(note) for name, note in notes.items()}
    files = weight_files(source)
    report = _Megabytes(sum(path.stat().st_size for path in files), progress)

    def settle(checked: list[Future[WrittenFile]]) -> None:
        for found in [future.result() for future in checked]:
            written[found.name] = found
            if partial is not None:
                partial.finish(found.name, found.model_dump_json(), found.digest)

    # While one file is copied, it is hashed, and the one before is brought to the disk and read back.
    pending: list[Future[WrittenFile]] = []
    with ThreadPoolExecutor(2) as verifier:
        for path in files:
            target, entries = folder / path.name, [entry for entry in stored.values() if entry.file == path.name]
            if path.name in written:
                report(written[path.name].size)
            elif untouched != "copy" and not entries:
                written[path.name] = _share(path, target, untouched, known)
                report(written[path.name].size)
            else:
                hashed = None if known is None or path.name in known else verifier.submit(file_digest, path)
                copied = _copy(path, target, entries, change, report)
                settle(pending)
                pending = [verifier.submit(_read_back, copied, hashed or (known or {}).get(path.name, ""))]
        settle(pending)
    return [written[path.name] for path in files]


def shared_files(
    source: Path, folder: Path, stored: Mapping[MatrixKey | str, StoredMatrix], untouched: Untouched
) -> list[str]:
    """Names of the weight files that :func:`save_checkpoint` would link instead of copying.

    Raises:
        UserError: They cannot be linked, because the copy is to be on another file system.
    """
    if untouched == "copy":
        return []
    edited = {entry.file for entry in stored.values()}
    files = [path for path in weight_files(source) if path.name not in edited]
    device = existing_parent(folder).stat().st_dev
    for path in files:
        if path.stat().st_dev != device:
            raise _not_linked(path, folder, untouched, "another file system")
    return [path.name for path in files]


@dataclass(frozen=True)
class _Copied:
    """A weight file that was written and is still to be checked."""

    path: Path
    target: Path
    state: tuple[int, int, int]
    """State of the source before it was read."""
    tensors: int
    replaced: dict[Range, str]
    """SHA-256 of what was computed for each changed tensor, by its place in the file."""


class _Megabytes:
    """Adds up bytes and reports megabytes."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def __call__(self, count: int) -> None:
        self._done += count
        if self._progress is not None:
            self._progress(self._done // 10**6, self._total // 10**6)


def _copy(
    path: Path, target: Path, entries: Sequence[StoredMatrix], change: Change, report: Callable[[int], None]
) -> _Copied:
    """Write one weight file with the edit in it; nothing is checked yet."""
    header, state = read_header(path), _state(path)
    position, replaced = 0, {}
    with path.open("rb", buffering=0) as reader, target.open("wb") as writer:
        for (begin, end), _, changed in changes(path, entries, change):
            _pass_on(reader, writer, position, begin, report)
            writer.write(changed)
            replaced[begin, end] = hashlib.sha256(changed).hexdigest()
            report(end - begin)
            position = end
        _pass_on(reader, writer, position, state[1], report)
    return _Copied(path, target, state, len(header), replaced)


def changes(
    path: Path, entries: Sequence[StoredMatrix], change: Change
) -> Iterator[tuple[Range, list[StoredMatrix], memoryview]]:
    """What an edit makes of the tensors of one weight file that hold value matrices to change, in the file's order.

    Args:
        path: The file.
        entries: The matrices of this file.
        change: Gives the new weight for the stored one.

    Yields:
        The place of a tensor, the matrices that it holds, and its new bytes, as many as before.

    Raises:
        UserError: A value matrix is stored quantised or becomes infinite or NaN.
    """
    header = read_header(path)
    parts: dict[str, list[StoredMatrix]] = {}
    for entry in entries:
        parts.setdefault(entry.name, []).append(entry)
    with path.open("rb", buffering=0) as reader:
        for name in sorted(parts, key=lambda name: header[name].begin):
            begin, end = header[name].begin, header[name].end
            content = bytearray(end - begin)
            reader.seek(begin)
            fill(reader, content)
            yield (begin, end), parts[name], _patch(header[name], parts[name], change, content)


def _pass_on(reader: BinaryIO, writer: BinaryIO, begin: int, end: int, report: Callable[[int], None]) -> None:
    """Copy a range of bytes to where the writer stands; inside the kernel where the file systems can do that."""
    writer.flush()
    while begin < end and (copied := _in_kernel(reader, writer, begin, min(WRITTEN_AT_A_TIME, end - begin))):
        begin += copied
        report(copied)
    for piece in pieces(reader, begin, end, WRITTEN_AT_A_TIME):
        writer.write(piece)
        report(len(piece))


def _in_kernel(reader: BinaryIO, writer: BinaryIO, begin: int, count: int) -> int:
    """How many bytes were copied without passing through this process; 0 if that does not work here."""
    if not hasattr(os, "copy_file_range"):
        return 0
    try:
        return os.copy_file_range(reader.fileno(), writer.fileno(), count, offset_src=begin)
    except OSError as error:
        if error.errno in FULL_DISK_ERRORS:
            raise
        return 0


def _patch(tensor: StoredTensor, entries: Sequence[StoredMatrix], change: Change, content: bytearray) -> memoryview:
    """The bytes of one stored tensor with the edit in it.

    Args:
        tensor: What the header says of it.
        entries: The value matrices that it holds.
        change: Gives the new weight of each.
        content: Its bytes; they may be used for the result.
    """
    dtype = str_to_torch_dtype.get(tensor.dtype)
    if dtype is None or not dtype.is_floating_point or dtype.itemsize == 1:
        raise UserError(
            f"{entries[0].name} is stored quantised, and an edit cannot be written into it.",
            found=tensor.dtype,
            do="write the edit into the full-precision checkpoint, or attach it instead",
        )
    weight = torch.frombuffer(content, dtype=dtype).view(tensor.shape)
    for entry in entries:
        part = weight if entry.slice is None else weight[entry.slice]
        changed = entry.changed(part, change)
        if changed.shape != part.shape or changed.dtype != dtype:
            raise ValueError(
                f"{entry.name}: {changed.dtype} {tuple(changed.shape)} is to replace {dtype} {tuple(part.shape)}"
            )
        if entry.slice is None:
            weight = changed
        else:
            weight[entry.slice] = changed
    if not all(bool(extreme.isfinite()) for extreme in weight.aminmax()):  # NaN is the extreme of any tensor with one
        raise UserError(
            f"{entries[0].name} would hold NaN or infinity with the edit in it.",
            do="check the checkpoint and the edit: kvw inspect, kvw evaluate",
        )
    # As bytes, because numpy knows no bfloat16.
    return weight.cpu().contiguous().view(-1).view(torch.uint8).numpy().data


def _read_back(copied: _Copied, source_digest: str | Future[str]) -> WrittenFile:
    """Bring a file to the disk and compare what is read back with the source and with what was computed.

    Args:
        copied: The file.
        source_digest: The source's SHA-256, or who is computing it.
    """
    path = copied.path
    wrong = first_difference(path, copied.target, copied.replaced)
    digest = source_digest if isinstance(source_digest, str) else source_digest.result()
    if _state(path) != copied.state:
        raise UserError(f"{path.name} was changed while it was copied.", do="run again when it is at rest")
    if wrong is not None:
        raise damaged(copied.target, f"other bytes between {wrong[0]} and {wrong[1]}")
    shutil.copymode(path, copied.target)
    noted = file_digest(copied.target) if digest and copied.replaced else digest
    return WrittenFile(
        name=path.name,
        size=copied.state[1],
        tensors=copied.tensors,
        changed=len(copied.replaced),
        way="copy",
        source_digest=digest,
        digest=noted,
    )


def _share(path: Path, target: Path, untouched: Untouched, known: Mapping[str, str] | None) -> WrittenFile:
    """Link a weight file instead of copying it."""
    real = path.resolve()  # a file of the hub's cache is a symbolic link to its content
    target.unlink(missing_ok=True)
    try:
        if untouched == "hardlink":
            os.link(real, target)
        else:
            with real.open("rb") as reader, target.open("wb") as writer:
                fcntl.ioctl(writer.fileno(), FICLONE, reader.fileno())
    except OSError as error:
        if error.errno in FULL_DISK_ERRORS:
            raise
        raise _not_linked(path, target, untouched, error.strerror or str(error)) from error
    if target.stat().st_size != real.stat().st_size:
        raise damaged(target, "another size")
    source_digest = "" if known is None else known.get(path.name) or file_digest(real)
    return WrittenFile(
        name=path.name,
        size=real.stat().st_size,
        tensors=len(read_header(target)),
        changed=0,
        way=untouched,
        source_digest=source_digest,
        digest=source_digest,
    )


def _state(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _not_linked(path: Path, target: Path, untouched: Untouched, found: str) -> UserError:
    advice = {
        "hardlink": "hard links need one file system for both; use --untouched copy",
        "reflink": "reflinks need one btrfs, XFS or bcachefs file system for both; use --untouched copy or hardlink",
    }
    return UserError(f"{path.name} could not be linked into {target}.", found=found, do=advice[untouched])
