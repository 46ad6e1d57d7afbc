"""A changed byte is found."""

from __future__ import annotations

import pytest

from kvw.checked import read_checked, write_checked


def test_what_was_written_comes_back(tmp_path):
    for content in (b"", b"text", bytes(range(256)) * 10, b"\nkvw checked 1 \n"):
        write_checked(tmp_path / "a", content)
        assert read_checked(tmp_path / "a") == content
    assert read_checked(tmp_path / "missing") is None
    assert read_checked(tmp_path / "a" / "missing") is None


@pytest.mark.thorough
@pytest.mark.parametrize("bit", [1, 32, 128])
def test_every_flipped_byte_is_found_and_told(tmp_path, caplog, bit):
    write_checked(tmp_path / "a", b"some content\n")
    whole = (tmp_path / "a").read_bytes()
    for place in range(len(whole)):
        caplog.clear()
        (tmp_path / "a").write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        assert read_checked(tmp_path / "a") is None
        assert "a is damaged" in caplog.text
    for cut in range(len(whole)):
        (tmp_path / "a").write_bytes(whole[:cut])
        assert read_checked(tmp_path / "a") is None


def test_a_file_under_the_name_of_another_is_not_taken(tmp_path):
    write_checked(tmp_path / "a", b"content")
    (tmp_path / "a").rename(tmp_path / "b")
    assert read_checked(tmp_path / "b") is None
