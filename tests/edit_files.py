"""Edit files made by hand; those that are sealed as kvw seals its own can only be wrong in what they say."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

from safetensors.torch import save

from kvw.edits.stored import BLANK, ENTRY, packed


def write_header(path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file without tensors."""
    header = json.dumps({"__metadata__": metadata}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def write(path: Path, kind: str, tensors: dict, **metadata) -> Path:
    """Write a sealed edit file of any kind, tensors and metadata."""
    path.write_bytes(packed(kind, metadata, tensors))
    return path


def write_raw(path: Path, entry: object, tensors: dict) -> Path:
    """Write an edit file with any entry in its header, or a text as it is; sealed if its digest is blank."""
    content = save(tensors, {ENTRY: entry if isinstance(entry, str) else json.dumps(entry)})
    digest = hashlib.sha256(content).hexdigest()
    path.write_bytes(content.replace(BLANK.encode(), digest.encode(), 1))
    return path
