"""Keys of a server's clients: which edits each may ask for. The file has their SHA-256 and never a key itself."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from kvw.errors import UserError
from kvw.files import write_text
from kvw.serving.names import JOIN, NAME, PLAIN
from kvw.serving.refusals import Refusal, shortened
from kvw.strict import Strict

BEGINNING = "kvw-"
"""Of every key, so that scanners for leaked secrets can know one."""
BYTES = 32
"""Of chance in a key. That is too much to guess, so a plain SHA-256 keeps it safe."""
ADD = "make it with: kvw keys add FILE NAME --model EDIT"

logger = logging.getLogger(__name__)


class Key(Strict):
    """One key.

    Args:
        name: Whose it is, for the audit log.
        sha256: Of the key.
        models: What its owner may ask for, each as a request names it: an edit, several joined by ``+``, or ``none``.
            The model's own name stands for the first.
        metrics: Whether it opens ``/metrics``.
    """

    name: Annotated[str, Field(pattern=rf"^{NAME.pattern}$", max_length=100)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    models: tuple[str, ...] = ()
    metrics: bool = False


class KeyFile(Strict):
    """All keys of a server."""

    format: Literal["kvw keys 1"] = "kvw keys 1"
    keys: tuple[Key, ...] = ()


def read_keys(path: Path) -> KeyFile:
    """Read a file of keys.

    Raises:
        UserError: There is none, it is no file of keys, or two keys have one name or one digest.
    """
    try:
        found = KeyFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read.", found=str(error), do=ADD) from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise UserError(f"{path} is no file of keys.", found=str(first["msg"]), do=ADD) from error
    for what in ("name", "sha256"):
        values = [getattr(key, what) for key in found.keys]
        if len(set(values)) < len(values):
            raise UserError(f"{path} has two keys of one {what}.", do="remove one of them")
    return found


def add_key(path: Path, name: str, models: Sequence[str], *, metrics: bool = False) -> str:
    """Make a key and write its digest into a file, which may be new.

    Returns:
        The key. It is nowhere else.

    Raises:
        UserError: A name cannot be used or is taken, the key would open nothing, or the file cannot be written.
    """
    if not NAME.fullmatch(name):
        raise UserError(
            "This cannot be the name of a key.", found=repr(name), do="use letters, digits, '.', '_' and '-'"
        )
    for model in models:
        if model != PLAIN and not all(NAME.fullmatch(part) for part in model.split(JOIN)):
            raise UserError(
                "This cannot be the name of an edit.",
                found=repr(model),
                do="give the NAME of kvw serve --edit NAME=FILE, several joined by '+', or 'none'",
            )
    if not models and not metrics:
        raise UserError("The key would open nothing.", do="name an edit with --model, or give --metrics")
    found = read_keys(path) if path.exists() else KeyFile()
    if any(key.name == name for key in found.keys):
        raise UserError(f"There is a key '{name}' already.", do=f"remove it first: kvw keys remove {path} {name}")
    secret = BEGINNING + secrets.token_urlsafe(BYTES)
    new = Key(name=name, sha256=_digest(secret), models=tuple(models), metrics=metrics)
    _write(path, (*found.keys, new))
    return secret


def remove_key(path: Path, name: str) -> None:
    """Take a key out of a file; servers that run refuse it from then on.

    Raises:
        UserError: There is no key of this name, or the file cannot be read or written.
    """
    found = read_keys(path)
    rest = tuple(key for key in found.keys if key.name != name)
    if len(rest) == len(found.keys):
        raise UserError(
            f"There is no key '{name}'.",
            found=", ".join(key.name for key in found.keys) or "none at all",
            do=f"name one that is there: kvw keys ls {path}",
        )
    _write(path, rest)


class Keys:
    """The keys of a running server; the file is read again whenever it has changed.

    Args:
        path: The file. If it is damaged or gone later, every request is refused until it is whole again.

    Raises:
        UserError: See :func:`read_keys`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._state = self._look()
        self._keys: tuple[Key, ...] | None = read_keys(path).keys

    def owner(self, authorization: Sequence[str]) -> Key:
        """The key of a request.

        Args:
            authorization: The values of all its headers ``Authorization``.

        Raises:
            Refusal: There is not just one header with a key that is known, or the file cannot be read now.
        """
        self._read_again()
        if self._keys is None:
            raise Refusal(503, "The server cannot read its keys; its log says why.", code="keys_unreadable")
        if len(authorization) != 1:
            what = "no key" if not authorization else f"{len(authorization)} headers Authorization"
            raise Refusal(401, f"The request has {what}; send one as 'Authorization: Bearer KEY'.", code="no_api_key")
        scheme, _, secret = authorization[0].partition(" ")
        digest = _digest(secret.strip()) if scheme.casefold() == "bearer" else ""
        for key in self._keys:
            if hmac.compare_digest(key.sha256, digest):
                return key
        raise Refusal(401, "This key is not known here.", code="invalid_api_key")

    def _read_again(self) -> None:
        state = self._look()
        if state == self._state:
            return
        self._state = state
        try:
            self._keys = read_keys(self._path).keys
        except UserError as error:
            logger.error("all requests are refused: %s", error)
            self._keys = None

    def _look(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def allowed(key: Key, model: str, headers: Sequence[str], base: str) -> str:
    """What a request with a key gets, by name.

    Args:
        key: Its key.
        model: The model that it names.
        headers: At most one value of the header that overrides it.
        base: The model's own name.

    Raises:
        Refusal: The key is for other models. The reply names its own, and none of anybody else's.
    """
    name = headers[0].strip() if headers else model
    if name == base and not headers and key.models:
        return key.models[0]
    if name not in key.models:
        own = ", ".join(key.models) or "no model"
        raise Refusal(403, f"This key is not for '{shortened(name)}'. It is for: {own}.", code="model_not_allowed")
    return name


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    write_text(path, KeyFile(keys=keys).model_dump_json(indent=2) + "\n")
