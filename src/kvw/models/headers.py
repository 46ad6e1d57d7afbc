"""What a safetensors file says of itself, without mapping the file into memory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvw.errors import UserError

LONGEST_HEADER = 100_000_000
"""Bytes; the format allows no more."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in its file."""

    dtype: str
    """Data type as the format spells it: ``BF16``, ``F32``."""
    shape: tuple[int, ...]
    begin: int
    """First byte, counted from the beginning of the file."""
    end: int
    """The byte after the last one."""


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name.

    Raises:
        UserError: It is no safetensors file, or it does not end where its header says.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        # The format: eight bytes for the length of the header, the header as JSON, then the tensors' bytes.
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, LONGEST_HEADER):
            raise _damaged(path, f"a header of {length} bytes in a file of {size}")
        content = file.read(length)
    try:
        header = json.loads(content)
        tensors = {name: _tensor(entry, 8 + length) for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    end = max((tensor.end for tensor in tensors.values()), default=8 + length)
    if end != size:
        raise _damaged(path, f"{size} bytes, {end} according to its header")
    return tensors


def _tensor(entry: Any, begin: int) -> StoredTensor:
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or len(offsets) != 2 or not 0 <= offsets[0] <= offsets[1]:
        raise ValueError(f"a tensor of {str(dtype)[:20]} at {str(offsets)[:50]}")
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError(f"a tensor of shape {str(shape)[:50]}")
    return StoredTensor(dtype, tuple(shape), begin + offsets[0], begin + offsets[1])


def _damaged(path: Path, found: str) -> UserError:
    return UserError(f"{path.name} is no complete safetensors file.", found=found, do="get an intact copy of it")
