"""Whether a copy is its source but for ranges of known digests."""

from __future__ import annotations

import errno
import hashlib
import random

import pytest

from kvw.errors import Unreadable
from kvw.files import file_digest
from kvw.models import comparing
from kvw.models.comparing import fill, first_difference, pieces

SIZE = 5000
RANGES = [(0, 10), (700, 1900), (1900, 1901), (4990, SIZE)]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A source, and a copy with other bytes in the ranges."""
    monkeypatch.setattr(comparing, "CHUNK", 256)
    content = bytearray(random.Random(0).randbytes(SIZE))
    (tmp_path / "source").write_bytes(content)
    replaced = {}
    for begin, end in RANGES:
        content[begin:end] = bytes(255 - byte for byte in content[begin:end])
        replaced[begin, end] = hashlib.sha256(content[begin:end]).hexdigest()
    (tmp_path / "copy").write_bytes(content)
    return tmp_path / "source", tmp_path / "copy", replaced


def test_a_right_copy(files):
    source, copy, replaced = files
    assert first_difference(source, copy, replaced) is None
    assert file_digest(source) == hashlib.sha256(source.read_bytes()).hexdigest()
    assert first_difference(source, source, {}) is None


@pytest.mark.parametrize("position", [0, 9, 10, 500, 699, 700, 1899, 1900, 1901, 4000, 4989, 4990, SIZE - 1])
def test_every_byte_counts(files, position):
    source, copy, replaced = files
    content = bytearray(copy.read_bytes())
    content[position] ^= 1
    copy.write_bytes(content)
    begin, end = first_difference(source, copy, replaced)
    assert begin <= position < end
    assert not any(begin < one < end or begin < other < end for one, other in RANGES)


@pytest.mark.parametrize("content", [b"", b"x" * (SIZE - 1), b"x" * (SIZE + 1)])
def test_another_size(files, content):
    source, copy, replaced = files
    copy.write_bytes(content)
    assert first_difference(source, copy, replaced) == (0, SIZE)


def test_pieces_are_the_file(files):
    source = files[0]
    with source.open("rb") as file:
        found = [bytes(piece) for piece in pieces(file, 3, 1000, 300)]
        assert [len(piece) for piece in found] == [300, 300, 300, 97]
        assert b"".join(found) == source.read_bytes()[3:1000]
        assert list(pieces(file, 7, 7)) == []


def test_a_file_that_ends_too_early(files):
    with files[0].open("rb") as file, pytest.raises(Unreadable, match="became shorter"):
        fill(file, bytearray(SIZE + 1))


def test_a_file_that_cannot_be_read_to_its_end():
    class Failing:
        name = "model.safetensors"

        def readinto(self, content):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(Unreadable, match=r"model\.safetensors could not be read\.\nfound: Input/output error"):
        fill(Failing(), bytearray(3))
