"""The bytes of an edit file: safetensors, with a list of what is in it and a SHA-256 over every byte."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from kvw.errors import UserError

FORMAT = "kvw edit 4"
ENTRY = "kvw edit"
"""The one entry of the header's metadata. The library writes several in an order that changes from process to process,
and then the same edit would have other bytes."""
BLANK = "0" * 64
"""Stands in the place of the digest while the digest is computed."""
LONGEST_HEADER = 100_000_000
DTYPES = {"F64", "F32", "F16", "BF16", "I64", "BOOL"}
"""What edits are stored in. Others (complex, 8 bits and fewer) are refused before a tensor is made of them."""
AGAIN = "make the edit again with: kvw erase"


@dataclass(frozen=True)
class Stored:
    """What a file holds, its bytes being as they were written.

    Args:
        kind: Kind of the edit.
        metadata: JSON.
        tensors: Tensors by name.
    """

    kind: str
    metadata: str
    tensors: dict[str, Tensor]


def packed(kind: str, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """The file of an edit; the same bytes for the same edit, in every process.

    Args:
        kind: Kind of the edit.
        metadata: What JSON can hold.
        tensors: Tensors by name.
    """
    entry = {
        "digest": BLANK,
        "format": FORMAT,
        "kind": kind,
        "metadata": json.dumps(metadata, sort_keys=True),
        "tensors": sorted(tensors),
    }
    # Copies, because the library takes no two that share memory.
    copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    content = safetensors.torch.save(copies, {ENTRY: json.dumps(entry)})
    digest = hashlib.sha256(content).hexdigest()
    return content.replace(BLANK.encode(), digest.encode(), 1)


def content_digest(kind: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the kind and the tensors, whatever the metadata say; takes no memory for copies."""
    digest = hashlib.sha256(kind.encode())
    for name, value in sorted(tensors.items()):
        plain = value.detach().cpu().contiguous()
        digest.update(json.dumps([name, str(plain.dtype), list(plain.shape)]).encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def unpacked(path: Path) -> Stored:
    """Read an edit file and make sure that it is what was written.

    Raises:
        UserError: It cannot be read, is no edit of this format, lacks some of its tensors, or a byte has changed.
    """
    try:
        content, header = _content(path)
        entry = _entry(path, header)
        _check_tensors(path, header, entry)
        _check_digest(path, content, entry)
        tensors = safetensors.torch.load(content)
    except OSError as error:
        raise UserError(
            f"{path} could not be read.",
            found=error.strerror or str(error),
            do="see that the file is there and may be read",
        ) from error
    except (SafetensorError, ValueError, OverflowError, RuntimeError) as error:
        found = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a safetensors file.", found=found, do=AGAIN) from error
    return Stored(entry["kind"], entry["metadata"], tensors)


def _content(path: Path) -> tuple[bytes, dict[str, Any]]:
    """All bytes of a file whose header is one of an edit, and that header."""
    with path.open("rb") as file:
        beginning = file.read(8)
        length = int.from_bytes(beginning, "little")
        if len(beginning) < 8 or length > LONGEST_HEADER:
            raise ValueError("there is no header")
        beginning += file.read(length)
        header = json.loads(beginning[8:])
        if not isinstance(header, dict):
            raise ValueError("the header is not an object")
        # A checkpoint that was named by mistake is not read to its end.
        return (beginning + file.read() if ENTRY in _metadata(header) else beginning), header


def _metadata(header: Mapping[str, Any]) -> dict[str, Any]:
    metadata = header.get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def _entry(path: Path, header: Mapping[str, Any]) -> dict[str, Any]:
    """What the header says of the edit."""
    metadata = _metadata(header)
    if ENTRY not in metadata:
        older = str(metadata.get("format", ""))
        made_by = f"{older!r}, of an earlier version" if older.startswith(ENTRY) else f"format {older!r}"
        raise unreadable(path, made_by)
    entry = json.loads(str(metadata[ENTRY]))
    if not isinstance(entry, dict) or entry.get("format") != FORMAT:
        raise unreadable(path, f"format {entry.get('format') if isinstance(entry, dict) else entry!r}")
    texts, names = [entry.get(name) for name in ("digest", "kind", "metadata")], entry.get("tensors")
    if not (all(isinstance(text, str) for text in texts) and isinstance(names, list)):
        raise unreadable(path, "a header with something missing")
    return entry


def _check_tensors(path: Path, header: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    """Compare the list with what is there."""
    listed, there = {str(name) for name in entry["tensors"]}, set(header) - {"__metadata__"}
    if missing := sorted(listed - there):
        raise UserError(
            f"{path} holds only a part of the edit.",
            found=f"{len(missing)} of {len(listed)} tensors are missing: {_few(missing)}",
            do=f"take the whole file, or {AGAIN}",
        )
    if more := sorted(there - listed):
        raise unreadable(path, f"tensors that are not in its list: {_few(more)}")
    for name in sorted(there):
        dtype = header[name].get("dtype") if isinstance(header[name], dict) else None
        if not (isinstance(dtype, str) and dtype in DTYPES):
            raise unreadable(path, f"{name[:60]} in {dtype!s:.20}")


def _check_digest(path: Path, content: bytes, entry: Mapping[str, Any]) -> None:
    """Compare the SHA-256 of the file, with zeros in the digest's own place, with the digest."""
    digest = entry["digest"].encode()
    place, everything = content.find(digest), memoryview(content)
    found = hashlib.sha256(everything[:place])
    found.update(BLANK.encode())
    found.update(everything[place + len(digest) :])
    if len(digest) != len(BLANK) or found.hexdigest().encode() != digest:
        raise UserError(
            f"{path} is damaged: it is not what was written.",
            found=f"SHA-256 {found.hexdigest()[:12]}, and it should be {entry['digest'][:12]}",
            do=f"take another copy of the file, or {AGAIN}",
        )


def unreadable(path: Path, found: str) -> UserError:
    """The error for a file that is no edit of this version."""
    return UserError(
        f"{path} is not an edit file that this version reads.",
        found=found,
        do=f"expected {FORMAT!r}; {AGAIN}, with the settings in the run.json beside it",
    )


def _few(names: list[str]) -> str:
    return ", ".join(name[:60] for name in names[:3]) + (", ..." if len(names) > 3 else "")
