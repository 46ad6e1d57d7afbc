import base64
import io
import os

import pytest
from PIL import Image

from kvw.data.images import FORMATS, load_image
from kvw.data.pictures import decoded, looks_like_picture, picture
from kvw.errors import UserError


def encoded(kind="PNG", size=(8, 6)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (10, 20, 30)).save(buffer, kind)
    return buffer.getvalue()


RAW = encoded()
TEXT = base64.b64encode(RAW).decode()


@pytest.mark.parametrize(
    "value",
    [
        RAW,
        TEXT,
        TEXT.rstrip("="),
        "\n".join(TEXT[start : start + 76] for start in range(0, len(TEXT), 76)) + "\n",
        base64.urlsafe_b64encode(RAW).decode(),
        f"data:image/png;base64,{TEXT}",
        f" DATA:image/png;charset=x;BASE64,{TEXT} ",
        {"bytes": RAW, "path": "elsewhere.png"},
        {"bytes": TEXT, "path": None},
        {"bytes": f"data:image/png;base64,{TEXT}"},
    ],
)
def test_pictures_inside_a_table_are_read(value, tmp_path):
    assert picture(value, "d:1", tmp_path) == RAW
    assert looks_like_picture(value) or not isinstance(value, str) or value.startswith(" ")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_known_by_its_beginning(kind, tmp_path):
    data = encoded(kind, (64, 64))
    assert picture(base64.b64encode(data).decode(), "d:1", tmp_path) == data
    assert looks_like_picture(data)
    assert load_image(data, "d:1").size == (64, 64)


def test_a_large_picture_is_read_from_base64(tmp_path):
    data = RAW + b"\0" * 3 * 10**6
    assert decoded(base64.b64encode(data).decode()) == data


def test_a_file_comes_before_base64(tmp_path):
    name = TEXT[:200].replace("/", "_")
    (tmp_path / name).write_bytes(RAW)
    assert picture(name, "d:1", tmp_path) == tmp_path / name
    assert picture(str(tmp_path / name), "d:1", tmp_path.parent) == tmp_path / name
    assert picture({"bytes": None, "path": name}, "d:1", tmp_path) == tmp_path / name


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x" * 256, "d:1: the image file does not exist"),
        ("x" * 5000, "d:1: an image is neither a path nor image data"),
        ("w " * 10**6, "d:1: an image is neither a path nor image data"),
        ("A" * 200_000, "d:1: an image is neither a path nor image data"),
        ("a/" * 3000, "d:1: an image is neither a path nor image data"),
        ("a\0b", "d:1: the image file does not exist"),
        ("a\0b" * 2000, "d:1: an image is neither a path nor image data"),
        (".", "d:1: the image is a folder"),
        ("C:\\Users\\me\\a.png", r"does not exist[\s\S]*found: C:\\Users\\me\\a.png\ndo: this is a path of Windows"),
        ("d:/a.png", "do: this is a path of Windows"),
        ("/nowhere/a.png", "do: check the path$"),
        ("loop", "d:1: the image file cannot be looked at"),
        ("pipe", "d:1: the image file does not exist"),
        ("https://x.org/a.png", r"does not exist[\s\S]*download it"),
        ("data:image/png,abc", "d:1: a data URI holds no picture"),
        ("data:image/png;base64,", "d:1: a data URI holds no picture"),
        ("data:image/png;base64,%%%", "d:1: a data URI holds no picture"),
        ("data:" + "x" * 10**6, "d:1: a data URI holds no picture"),
        (b"", "d:1: an image is neither a path nor image data"),
        ({"bytes": b"", "path": "a.png"}, "d:1: an image is neither a path nor image data"),
        ({"bytes": [1, 2], "path": None}, "d:1: an image is neither a path nor image data"),
        ({"url": "a.png"}, r"an image is neither[\s\S]*'url'"),
        (3, r"an image is neither[\s\S]*int 3"),
        (None, r"an image is neither[\s\S]*NoneType"),
    ],
)
def test_whatever_is_no_picture_is_one_short_message(value, message, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=message) as raised:
        picture(value, "d:1", tmp_path)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    "value",
    [
        *("a.png", "x/My Photo.JPG", "https://x.org/a.jpeg?w=3", ["n", "b.webp"], {"path": "a.gif"}),
        *({"bytes": TEXT, "path": None}, {"url": "https://x.org/a.png"}, {"type": "image", "data": TEXT}),
    ],
)
def test_what_looks_like_a_picture(value):
    assert looks_like_picture(value)


@pytest.mark.parametrize(
    "value", ["", "png", "a.pdf", "Ada wrote a.png.", 3, None, [], {}, b"abc", "A" * 100, TEXT[:30]]
)
def test_what_does_not(value):
    assert not looks_like_picture(value)
