"""Files that only whoever has a key can read: AES-256-GCM inside a safetensors file."""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kvw.errors import UserError
from kvw.optional import optional as optional_of

optional = partial(optional_of, use="Encryption needs", extra="evidence")
KEY_BYTES, NONCE_BYTES = 32, 12
LONGEST_KEY = 1024
"""Bytes of a file that may be a key."""
SEALED = ", encrypted"
"""How the format of such a file ends, behind the format of what is in it."""
MAKE = "make one with: openssl rand -base64 32 > key.txt"


def read_key(path: Path) -> bytes:
    """The key of a file: 32 bytes in Base64.

    Raises:
        UserError: It cannot be read, or holds something else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_KEY)
    except (OSError, ValueError) as error:
        raise UserError(f"The key {path} cannot be read.", found=str(error), do=MAKE) from error
    try:
        key = base64.b64decode(content.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise UserError(f"{path} holds no key of {KEY_BYTES} bytes in Base64.", do=MAKE)
    return key


def seal(content: bytes, form: str, key: bytes) -> bytes:
    """A safetensors file with one tensor, the encrypted bytes.

    Args:
        content: What to encrypt.
        form: What it is; stated in the header, and bound to the content.
        key: 32 bytes.

    Raises:
        UserError: The package cryptography is not installed.
    """
    nonce = os.urandom(NONCE_BYTES)
    hidden: bytes = _cipher(key).encrypt(nonce, content, form.encode())
    stated = {"format": f"{form}{SEALED}", "nonce": nonce.hex()}
    tensor = {"dtype": "U8", "shape": [len(hidden)], "data_offsets": [0, len(hidden)]}
    header = json.dumps({"__metadata__": stated, "content": tensor}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + hidden


def metadata_in(content: bytes) -> dict[str, Any]:
    """What a safetensors file says of itself.

    Raises:
        ValueError, KeyError, TypeError: It is no such file.
    """
    stated: dict[str, Any] = json.loads(content[8 : _header_end(content)])["__metadata__"]
    return stated


def is_sealed(stated: Mapping[str, Any]) -> bool:
    """Whether a safetensors file says of itself that it is encrypted."""
    return str(stated.get("format", "")).endswith(SEALED)


def opened(content: bytes, key: bytes | None, path: Path) -> bytes:
    """What is in a file, encrypted or not.

    Args:
        content: The bytes of a safetensors file.
        key: 32 bytes; None if there is none.
        path: The file, for messages.

    Raises:
        UserError: It is encrypted and there is no key, the key is another one or a byte was changed, or the package
            cryptography is not installed.
        ValueError, KeyError, TypeError: It is no safetensors file.
    """
    stated = metadata_in(content)
    if not is_sealed(stated):
        return content
    if key is None:
        raise UserError(f"{path} is encrypted.", do="add --earlier-key FILE, the key with which it was kept")
    try:
        nonce, form = bytes.fromhex(stated["nonce"]), str(stated["format"]).removesuffix(SEALED)
        found: bytes = _cipher(key).decrypt(nonce, content[_header_end(content) :], form.encode())
    except optional("cryptography.exceptions").InvalidTag as error:
        raise UserError(
            f"The key does not open {path}.",
            found="it is another key, or the file was changed",
            do="give the key with which it was kept, and the file as it was",
        ) from error
    return found


def _header_end(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def _cipher(key: bytes) -> Any:
    return optional("cryptography.hazmat.primitives.ciphers.aead").AESGCM(key)
