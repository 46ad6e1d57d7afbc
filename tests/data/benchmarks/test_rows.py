"""Values inside the rows of benchmarks go through the readers of data files."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from kvw.data.benchmarks.rows import Rejected, Row
from kvw.data.benchmarks.store import Store, image_file
from kvw.errors import UserError


def row(**values):
    return Row("t", 1, "t:1", values)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "has a key twice"),
        ('{"a": NaN}', "holds what is no number"),
        ("[" * 100_000 + "]" * 100_000, "nested more than 64 levels"),
        ("9" * 5000, "a number of 5000 digits"),
        (r'["\ud800"]', "half of a character"),
        ("{'a': ", "neither JSON nor a Python literal"),
        ("(" * 100_000, "neither JSON nor a Python literal"),
    ],
)
def test_structures_in_texts_are_strict_json(text, reason):
    with pytest.raises(Rejected, match=reason):
        row(c=text).nested("c")


def test_structures_in_texts_are_json_or_python():
    assert row(c='{"a": [1, null]}').nested("c") == {"a": [1, None]}
    assert row(c="{'a': [1, None]}").nested("c") == {"a": [1, None]}


def test_pictures_are_bytes_base64_or_files_that_exist(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    data = buffer.getvalue()
    (tmp_path / "a.png").write_bytes(data)
    assert row(i={"bytes": data, "path": "x"}).image("i") == data
    assert row(i={"bytes": base64.b64encode(data).decode(), "path": None}).image("i") == data
    path = str(tmp_path / "a.png")
    assert row(i=[{"bytes": None, "path": path}]).images("i") == (Path(path),)
    for wrong in ("gone.png", "x" * 300, "a\0b"):
        with pytest.raises(UserError, match="t:1 i: the image file does not exist"):
            row(i={"bytes": None, "path": wrong}).image("i")


def test_paths_of_any_length_are_no_files(tmp_path):
    (tmp_path / "a").write_text("")
    assert image_file(tmp_path, "x" * 5000, "a\0b", "a") == tmp_path / "a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "a": 2}', "f.json has a key twice"),
        (b'{"a": 1}\n{"b": 1, "b": 2}', "f.json:2 has a key twice"),
        (b"\xff\xff", "f.json is not UTF-8"),
        (b"[" * 100_000, "f.json is nested more than 64 levels"),
    ],
)
def test_files_of_json_are_strict(tmp_path, content, message):
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        Store(tmp_path).json("f.json")
