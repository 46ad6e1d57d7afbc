"""Pictures as tables hold them: a path, or the picture itself as bytes, base64 or a data URI."""

from __future__ import annotations

import base64
import binascii
import errno
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath

from kvw.data.example import ImageSource
from kvw.errors import UserError
from kvw.printable import shortened

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm"),
    *(".heic", ".heif", ".jp2", ".svg"),
)
"""How names of pictures end, those among them that cannot be opened."""
SIGNATURES = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|BM.{24}|II\*\0|MM\0\*|.{4}ftypavi[fs]|P[1-6]\s", re.DOTALL
)
"""How encoded pictures begin."""
DATA_URI = re.compile(r"data:([^,]{0,200}?)(;base64)?,", re.IGNORECASE)


def picture(value: object, where: str, folder: Path) -> ImageSource:
    """The picture that a value of a table stands for.

    Args:
        value: A path, absolute or relative to ``folder``; encoded bytes; a text in base64, or a data URI; or the
            structure of the Hugging Face hub, ``{"bytes": ..., "path": ...}``. A path that exists comes before base64.
        where: How messages name the row.
        folder: Where the table is.

    Raises:
        UserError: It is none of these, or the file does not exist or cannot be looked at.
    """
    if isinstance(value, Mapping) and value.keys() & {"bytes", "path"}:
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes) and value:
        return value
    if not isinstance(value, str) or not value.strip():
        raise _neither(value, where)
    if value.lstrip()[:5].lower() == "data:":
        return _from_uri(value.strip(), where)
    path = folder / value
    if is_file(path, where):
        return path
    found = decoded(value)
    if found is not None:
        return found
    if len(value) > 1000:
        raise _neither(value, where)
    raise _absent(value, where, folder)


def _absent(value: str, where: str, folder: Path) -> UserError:
    """What is said of a path at which there is no file."""
    path, slashed = folder / value, value.replace("\\", "/")
    if os.path.isdir(path):  # noqa: PTH112 - a path of any kind is looked at without an error
        return UserError(f"{where}: the image is a folder.", found=str(path), do="give the path of a file in it")
    found, do = str(path), "check the path" + f"; it is relative to {folder}" * (not Path(value).is_absolute())
    if value.startswith(("http://", "https://")):
        found, do = value, "download it and give its path"
    elif "\\" in value and is_file(folder / slashed, where):
        do = f"write {slashed}: there is such a file"
    elif PureWindowsPath(value).drive and os.name != "nt":
        do = "this is a path of Windows: put the picture beside the data file, and give its path from there"
        found = value
    return UserError(f"{where}: the image file does not exist.", found=found, do=do)


def decoded(text: str) -> bytes | None:
    """A picture from base64; None if the text is not base64, or not that of a picture."""
    compact = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    if len(compact) < 40 or not SIGNATURES.match(_bytes(compact[:40]) or b""):
        return None
    return _bytes(compact)


def looks_like_picture(value: object) -> bool:
    """Whether a value of a column of any name is probably a picture: its bytes, its base64, or the name of a file."""
    if isinstance(value, bytes):
        return SIGNATURES.match(value) is not None
    if isinstance(value, Mapping):
        return isinstance(value.get("bytes"), bytes) or any(looks_like_picture(one) for one in value.values())
    if isinstance(value, list):
        return any(looks_like_picture(one) for one in value)
    if not isinstance(value, str):
        return False
    if value[:11].lower() == "data:image/":
        return True
    named = len(value) < 1000 and value.strip().partition("?")[0].lower().endswith(SUFFIXES)
    return named or decoded(value[:80]) is not None


def _bytes(compact: str) -> bytes | None:
    """The bytes of base64 without padding; None if it is none."""
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _from_uri(uri: str, where: str) -> bytes:
    head = DATA_URI.match(uri)
    content = _bytes("".join(uri[head.end() :].split()).rstrip("=")) if head is not None and head[2] else None
    if not content:
        raise UserError(
            f"{where}: a data URI holds no picture.",
            found=shortened(uri, 60),
            do="write it as data:image/png;base64,... with the base64 of the picture",
        )
    return content


def is_file(path: Path, where: str) -> bool:
    """Whether there is such a file; a path that is too long or holds a null character is none.

    Raises:
        UserError: It cannot be told; ``where`` is the beginning of the message.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a null character is a ValueError
        return False
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise UserError(
            f"{where}: the image file cannot be looked at.",
            found=f"{path}: {error.strerror}",
            do="check the path, and who may read its folders",
        ) from error


def _neither(value: object, where: str) -> UserError:
    return UserError(
        f"{where}: an image is neither a path nor image data.",
        found=f"{type(value).__name__} {shortened(repr(value))}",
        do="give the path of an image file, or the picture itself in base64 or as a data URI",
    )
