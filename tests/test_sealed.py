"""What is encrypted comes back with its key and with no other, and says nothing without it."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from kvw.errors import UserError
from kvw.sealed import is_sealed, metadata_in, opened, read_key, seal

KEY, FORM = bytes(range(32)), "kvw something 1"
CONTENT = safetensors.torch.save({"secret": torch.arange(3)}, {"name": "Ada Vance"})


def test_it_comes_back_and_says_nothing_meanwhile(tmp_path):
    sealed = seal(CONTENT, FORM, KEY)
    assert b"Ada" not in sealed
    assert b"secret" not in sealed
    assert seal(CONTENT, FORM, KEY) != sealed  # a new nonce each time
    assert is_sealed(metadata_in(sealed))
    assert opened(sealed, KEY, Path("f")) == CONTENT
    assert opened(CONTENT, KEY, Path("f")) == opened(CONTENT, None, Path("f")) == CONTENT
    (tmp_path / "f.safetensors").write_bytes(sealed)
    with safe_open(tmp_path / "f.safetensors", "pt") as file:
        assert file.metadata()["format"] == f"{FORM}, encrypted"
        assert len(file.get_tensor("content")) == len(CONTENT) + 16


def test_neither_another_key_nor_another_byte_opens_it():
    sealed = seal(CONTENT, FORM, KEY)
    with pytest.raises(UserError, match=r"The key does not open f\."):
        opened(sealed, bytes(32), Path("f"))
    with pytest.raises(UserError, match=r"f is encrypted\."):
        opened(sealed, None, Path("f"))
    for place in (-1, -len(CONTENT), sealed.index(b"something")):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(UserError, match="the file was changed"):
            opened(bytes(changed), KEY, Path("f"))


def test_a_key_is_32_bytes_in_base64(tmp_path):
    file = tmp_path / "key.txt"
    file.write_bytes(base64.b64encode(KEY) + b"\n")
    assert read_key(file) == KEY
    for wrong in (KEY, base64.b64encode(KEY[1:]), b"", base64.b64encode(KEY) + b"!"):
        file.write_bytes(wrong)
        with pytest.raises(UserError, match="no key of 32 bytes"):
            read_key(file)
    with pytest.raises(UserError, match="cannot be read"):
        read_key(tmp_path / "gone")
