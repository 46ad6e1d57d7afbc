"""Ed25519 keys in PEM files; nothing else is taken, so that nobody can choose a weaker signature."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kvw.errors import UserError
from kvw.optional import optional as optional_of

optional = partial(optional_of, use="Signatures need", extra="evidence")
"""Import a module of the extra ``evidence`` when it is first needed."""
LONGEST_KEY = 65536
"""Bytes of a file that may be a key."""
MAKE = "make one with: openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out key.pub"


@dataclass(frozen=True)
class Signed:
    """A signature and whose it is.

    Args:
        key: Identifier of the public key, 64 hexadecimal digits.
        signature: 64 bytes.
    """

    key: str
    signature: bytes


class PrivateKey:
    """Signs."""

    def __init__(self, key: Any) -> None:
        self._signer = optional("securesystemslib.signer").CryptoSigner(key)

    def sign(self, kind: str, payload: bytes) -> Signed:
        """A DSSE signature over a payload and its type."""
        envelope = optional("securesystemslib.dsse").Envelope(payload, kind, {}).sign(self._signer)
        return Signed(envelope.keyid, bytes.fromhex(envelope.signature))


class PublicKey:
    """Verifies.

    Attributes:
        name: Its identifier, 64 hexadecimal digits.
    """

    def __init__(self, key: Any) -> None:
        self._key = optional("securesystemslib.signer").SSlibKey.from_crypto(key)
        self.name: str = self._key.keyid

    def verifies(self, kind: str, payload: bytes, signed: Signed) -> bool:
        """Whether this key has signed a payload and its type, in the form of DSSE."""
        signature = optional("securesystemslib.signer").Signature(signed.key, signed.signature.hex())
        envelope = optional("securesystemslib.dsse").Envelope(payload, kind, {signed.key: signature})
        try:
            envelope.verify([self._key], 1)
        except optional("securesystemslib.exceptions").VerificationError:
            return False
        return True


def private_key(path: Path) -> PrivateKey:
    """Read the private key of a PEM file (PKCS#8, not encrypted).

    Raises:
        UserError: There is none, it is encrypted, or it is of another kind; or a package is missing.
    """
    try:
        key = _serialization().load_pem_private_key(_content(path), None)
    except TypeError as error:
        do = "give it without a password, in a file that only you can read"
        raise UserError(f"The key {path} is encrypted.", do=do) from error
    except (ValueError, _unsupported()) as error:
        raise _no_key(path, "private", error) from error
    if not isinstance(key, _ed25519().Ed25519PrivateKey):
        raise _other_kind(path, key)
    return PrivateKey(key)


def public_key(path: Path) -> PublicKey:
    """Read the public key of a PEM file.

    Raises:
        UserError: There is none, or it is of another kind; or a package is missing.
    """
    try:
        key = _serialization().load_pem_public_key(_content(path))
    except (ValueError, _unsupported()) as error:
        raise _no_key(path, "public", error) from error
    if not isinstance(key, _ed25519().Ed25519PublicKey):
        raise _other_kind(path, key)
    return PublicKey(key)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LONGEST_KEY)
    except (OSError, ValueError) as error:
        raise UserError(f"The key {path} cannot be read.", found=str(error), do=MAKE) from error


def _no_key(path: Path, what: str, error: Exception) -> UserError:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UserError(f"{path} is not a {what} key in PEM form.", found=first[:200], do=MAKE)


def _other_kind(path: Path, key: object) -> UserError:
    return UserError(f"{path} is not an Ed25519 key.", found=type(key).__name__.strip("_"), do=MAKE)


def _serialization() -> Any:
    return optional("cryptography.hazmat.primitives.serialization")


def _ed25519() -> Any:
    return optional("cryptography.hazmat.primitives.asymmetric.ed25519")


def _unsupported() -> Any:
    return optional("cryptography.exceptions").UnsupportedAlgorithm
