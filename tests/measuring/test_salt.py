"""The secret that keeps digests of data from being guessed."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

import kvw
from kvw.measuring.salt import SALT, salted

DIGEST = hashlib.sha256(b"data").hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_machine_gives_the_same_digest_always_and_another_one_another(cache, tmp_path, monkeypatch):
    first = salted(DIGEST)
    assert first == salted(DIGEST) != DIGEST
    assert len(first) == 64
    assert int(first, 16)
    assert salted(DIGEST[::-1]) != first
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "other"))
    assert salted(DIGEST) != first


def test_the_secret_is_for_its_owner_alone_and_no_leftover_remains(cache):
    salted(DIGEST)
    assert [path.name for path in cache.iterdir()] == [SALT]
    assert stat.S_IMODE((cache / SALT).stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_the_first_of_several_processes_makes_it(cache):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: salted(DIGEST), range(32)))) == 1
    assert [path.name for path in cache.iterdir()] == [SALT]


@pytest.mark.parametrize("moment", ["os.fsync", "pathlib.Path.unlink"])
def test_a_kill_while_it_is_made_leaves_nothing_for_long(cache, moment, monkeypatch):
    """Before the secret has its name, and between its two names."""
    child = os.fork()
    if not child:
        monkeypatch.setattr(moment, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        salted(DIGEST)
    os.waitpid(child, 0)
    assert [path.name for path in cache.iterdir()] != [SALT]
    first = salted(DIGEST)
    assert [path.name for path in cache.iterdir()] == [SALT]
    assert salted(DIGEST) == first


@pytest.mark.thorough
def test_a_flipped_byte_is_found(cache):
    salted(DIGEST)
    content = (cache / SALT).read_bytes()
    for place in range(len(content) - 1):
        (cache / SALT).write_bytes(content[:place] + bytes([content[place] ^ 3]) + content[place + 1 :])
        with pytest.raises(kvw.UserError, match="damaged"):
            salted(DIGEST)
    (cache / SALT).write_bytes(b"")
    with pytest.raises(kvw.UserError, match="damaged"):
        salted(DIGEST)


def test_without_a_place_for_it_digests_are_told_to_be_good_for_nothing_later(cache, caplog):
    cache.write_text("a file where the folder should be")
    assert salted(DIGEST) != salted(DIGEST)
    assert "cannot be kept" in caplog.text
