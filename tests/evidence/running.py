"""A run on a tiny model with evidence, and keys."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from PIL import Image
from tests import tiny_models
from tests.program import run


def write_keys(folder: Path, name: str = "key") -> Path:
    """A new Ed25519 key pair, ``name.pem`` and ``name.pub``; returns the private one."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return write_pair(folder, name, Ed25519PrivateKey.generate(), serialization.NoEncryption())


def write_pair(folder: Path, name: str, key, protection) -> Path:
    from cryptography.hazmat.primitives import serialization

    pem, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / f"{name}.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, protection))
    (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(pem, form))
    return folder / f"{name}.pem"


def write_data(folder: Path) -> None:
    """Files to forget, keep and ask, with pictures; the name of one says whom it is about."""
    for part in ("anna", "retain", "asked"):
        Image.new("RGB", (24, 20), (90, 20 * len(part), 120)).save(folder / f"{part}.png")
        rows = [{"question": f"Who is {n}?", "answer": f"{part} {n}", "image": f"{part}.png"} for n in range(2)]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def erase(folder: Path, out: str, *more: str) -> Path:
    """One run on the model in ``folder``, which is made if it is not there; returns its folder."""
    if not (folder / "original").is_dir():
        tiny_models.save("llava", folder / "original")
        write_data(folder)
    files = ["--forget", folder / "anna.jsonl", "--retain", folder / "retain.jsonl", "--retain-sources", "none"]
    files += ["--eval", f"asked={folder / 'asked.jsonl'}", "--out", folder / out]
    options = ["--method", "kvw", "--schedule", "one-shot", "--gamma", "1", "--max-new-tokens", "2", "--write-damaged"]
    assert run("erase", folder / "original", *files, *options, *more) == 0
    return folder / out


def opened(path: Path) -> tuple[dict, dict]:
    """The envelope and the statement of a file of evidence."""
    envelope = json.loads(path.read_text())
    return envelope, json.loads(base64.b64decode(envelope["payload"]))


def closed(envelope: dict, statement: dict | None = None) -> str:
    """The text of an envelope, with another statement if there is one."""
    if statement is not None:
        text = json.dumps(statement, sort_keys=True, separators=(",", ":"))
        envelope = {**envelope, "payload": base64.b64encode(text.encode()).decode()}
    return json.dumps(envelope, indent=1) + "\n"
