"""The file of a statement: a DSSE envelope with one signature or none, in exactly one form.

Every byte of the file counts. What could be written in two ways (white space, the spare bits of base64, a second
signature, a key twice) is refused in all but one, so no byte can be changed without notice.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvw.data.strict_json import parse_json
from kvw.errors import UserError
from kvw.evidence.keys import PrivateKey, PublicKey, Signed

PAYLOAD_TYPE = "application/vnd.in-toto+json"
LARGEST = 2**28
"""Bytes of a file that may be evidence."""


class Altered(UserError):
    """A file is no evidence as kvw writes it, or not any more."""


@dataclass(frozen=True)
class Envelope:
    """What is stated, and by whom it is signed.

    Args:
        payload: The statement, as the bytes that were signed.
        signed: The signature; None if nobody has signed.
    """

    payload: bytes
    signed: Signed | None = None

    def packed(self) -> bytes:
        """The bytes of the file."""
        signatures = [] if self.signed is None else [{"keyid": self.signed.key, "sig": _text(self.signed.signature)}]
        content = {"payloadType": PAYLOAD_TYPE, "payload": _text(self.payload), "signatures": signatures}
        return (json.dumps(content, indent=1) + "\n").encode("ascii")

    def signed_with(self, key: PrivateKey) -> Envelope:
        """This payload with a signature over its type and all of its bytes; an earlier signature is dropped."""
        return Envelope(self.payload, key.sign(PAYLOAD_TYPE, self.payload))

    def refuted(self, key: PublicKey) -> str:
        """Why the signature is not one of this key over this payload; empty if it is."""
        if self.signed is None:
            return "nobody has signed it"
        if self.signed.key != key.name:
            return f"it is signed with another key: {self.signed.key[:16]!r}, and yours is {key.name[:16]}"
        if not key.verifies(PAYLOAD_TYPE, self.payload, self.signed):
            return "the signature is not one of your key over this statement: one of the two was changed"
        return ""


def read_envelope(path: Path) -> Envelope:
    """Read a file of evidence.

    Raises:
        Altered: It is none, or a byte of its outer form is not as it was written.
        UserError: There is no such file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        do = "name the evidence.json of a run"
        raise UserError(f"There is no evidence {path}.", found=str(error), do=do) from error
    if len(content) > LARGEST:
        raise _altered(path, f"more than {LARGEST} bytes")
    try:
        envelope = _envelope(parse_json(content.decode("ascii"), "It", ""))
        written = envelope.packed()
    except (AttributeError, KeyError, TypeError, ValueError, binascii.Error, UserError) as error:
        raise _altered(path, f"{type(error).__name__}: {str(error).splitlines()[0][:120]}") from error
    if written != content:
        raise _altered(path, "it can be read, but kvw would write it in another way")
    return envelope


def _envelope(content: dict[str, Any]) -> Envelope:
    if content["payloadType"] != PAYLOAD_TYPE:
        raise ValueError(f"the payload is of type {content['payloadType']!r:.60}")
    signatures = content["signatures"]
    if len(signatures) > 1:
        raise ValueError(f"it has {len(signatures)} signatures, and kvw writes one")
    signed = [Signed(str(one["keyid"]), _bytes(one["sig"])) for one in signatures]
    return Envelope(_bytes(content["payload"]), signed[0] if signed else None)


def _altered(path: Path, found: str) -> Altered:
    return Altered(f"{path} is no evidence of kvw, or was changed.", found=found)


def _text(content: bytes) -> str:
    return base64.standard_b64encode(content).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
