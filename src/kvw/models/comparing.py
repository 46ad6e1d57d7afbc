"""Whether one file has the bytes of another, but for some ranges whose digests are known."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from kvw.errors import Unreadable

CHUNK = 2**20
"""Bytes read at a time; two such pieces stay in a core's cache while they are compared."""

Range = tuple[int, int]
"""First byte and the byte after the last one, counted from the beginning of the file."""


def first_difference(source: Path, copy: Path, replaced: Mapping[Range, str]) -> Range | None:
    """Bring a copy to the disk, read it back, and compare it with its source.

    Both are read from the operating system, which serves what it still holds in memory: a fault on the way to it is
    found, one of the disk itself only where it reads the disk again.

    Args:
        source: The file that was copied.
        copy: The copy.
        replaced: SHA-256 of what the copy must hold where it differs from the source, by range.

    Returns:
        The first range in which the copy is not what it should be; None if it is.

    Raises:
        OSError: One of the files cannot be read, or the copy cannot be brought to the disk.
    """
    size = source.stat().st_size
    with source.open("rb", buffering=0) as original, copy.open("rb", buffering=0) as written:
        os.fsync(written.fileno())
        if os.fstat(written.fileno()).st_size != size:
            return 0, size
        position = 0
        for begin, end in [*sorted(replaced), (size, size)]:
            pairs = zip(pieces(original, position, begin), pieces(written, position, begin), strict=True)
            for one, other in pairs:
                if one != other:
                    return position, begin
            digest = hashlib.sha256()
            for piece in pieces(written, begin, end):
                digest.update(piece)
            if end > begin and digest.hexdigest() != replaced[begin, end]:
                return begin, end
            position = end
    return None


def pieces(file: BinaryIO, begin: int, end: int, size: int = CHUNK) -> Iterator[bytearray]:
    """The bytes of a range in pieces of at most ``size`` bytes; each is valid until the next one is asked for.

    Plain reads, because the pages of a mapped file count as memory of the process.

    Raises:
        Unreadable: See :func:`fill`.
    """
    file.seek(begin)
    piece = bytearray(min(size, end - begin))
    for position in range(begin, end, size):
        if end - position < len(piece):
            piece = bytearray(end - position)
        fill(file, piece)
        yield piece


def fill(file: BinaryIO, content: bytearray) -> None:
    """Read as many bytes as ``content`` is long.

    Raises:
        Unreadable: The file ends before, or the operating system cannot read it.
    """
    view, filled = memoryview(content), 0
    while filled < len(view):
        try:
            count = file.readinto(view[filled:])  # type: ignore[attr-defined]
        except OSError as error:
            raise Unreadable(
                f"{file.name} could not be read.", found=error.strerror or str(error), do="start the same command again"
            ) from error
        if not count:
            raise Unreadable(f"{file.name} became shorter while it was read.", do="look who writes to it")
        filled += count
