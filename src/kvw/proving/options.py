"""Fields of a request to ``kvw erase``, as a file or a command line has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from kvw.files import file_digest
from kvw.known import known
from kvw.measuring.fingerprint import digest
from kvw.methods.registry import DEFAULT, get_method
from kvw.models.checkpoint import Checkpoint
from kvw.runs.request import EraseRequest

OURS = ("model", "forget", "out", "save_model", "force")
"""Fields that the proving ground fills in itself."""


def erase_request(
    checkpoint: Checkpoint, files: Mapping[str, Path], out: Path, options: Mapping[str, Any]
) -> EraseRequest:
    """A request to ``kvw erase`` with the files of a request of the proving ground; no model is written.

    Args:
        checkpoint: The model.
        files: Its files by split.
        out: The run directory.
        options: Further fields of :class:`kvw.runs.request.EraseRequest` by name. ``settings`` is a mapping of the
            method's settings, a file may be a text, and ``retain`` is the retain file of the request unless it is
            given: None for none.

    Raises:
        UserError: There is no such field or setting, or it makes no sense.
    """
    kinds = {field.name: str(field.type) for field in fields(EraseRequest) if field.name not in OURS}
    values: dict[str, Any] = {"retain": files["retain"]}
    for name, value in options.items():
        known(name, kinds, "field", "a request")
        values[name] = Path(value) if "Path" in kinds[name] and isinstance(value, str) else value
    values["settings"] = get_method(str(options.get("method", DEFAULT))).read(options.get("settings") or {})
    return EraseRequest(model=checkpoint, forget=files["forget"], out=out, save_model=False, force=True, **values)


def options_digest(request: EraseRequest) -> str:
    """SHA-256 over all fields of a request but the place of its run, files by their content."""
    return digest(
        {
            field.name: _content(getattr(request, field.name))
            for field in fields(EraseRequest)
            if field.name not in ("model", "out")
        }
    )


def _content(value: Any) -> str:
    if isinstance(value, Path):
        return file_digest(value) if value.is_file() else "missing"
    if isinstance(value, Mapping):
        return digest({str(key): _content(one) for key, one in value.items()})
    if isinstance(value, (list, tuple)):
        return digest([_content(one) for one in value])
    return repr(value)
