"""Edit files made by hand."""

from __future__ import annotations

import json
import struct
from pathlib import Path


def write_header(path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file without tensors."""
    header = json.dumps({"__metadata__": metadata}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
