"""The JSON files of a checkpoint, read so that whatever they hold ends in an object or one message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kvw.errors import UserError

LARGEST = 64 * 2**20
"""Bytes. The index of a checkpoint with 100,000 tensors has about a tenth."""


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        UserError: It is not there, too large, no UTF-8, no JSON, nested too deeply, or no object.
    """
    try:
        if (size := path.stat().st_size) > LARGEST:
            raise _unreadable(path, f"{size} bytes, where {LARGEST} are the most")
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:  # what is wrong in UTF-8, JSON and numbers are values
        raise _unreadable(path, str(error)) from error
    except RecursionError as error:
        raise _unreadable(path, "objects or lists nested too deeply") from error
    if not isinstance(content, dict):
        raise _unreadable(path, f"a {type(content).__name__}, where an object is expected")
    return content


def _unreadable(path: Path, found: str) -> UserError:
    return UserError(
        f"{path.name} in {path.parent.name} could not be read.", found=found, do="get an intact copy of the checkpoint"
    )
