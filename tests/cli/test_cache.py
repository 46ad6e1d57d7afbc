"""``kvw cache``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.program import assert_refused, run

import kvw.cache
from kvw.cache import KINDS, cache_directory
from kvw.measuring.salt import SALT


@pytest.fixture
def filled(tmp_path, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "cache"))
    for place, size in (("answers/a.jsonl", 5), ("moments/b.safetensors", 7), ("models/x/config.json", 2), (SALT, 3)):
        file = cache_directory() / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * size)
    return cache_directory()


def test_what_is_kept_is_listed_and_removed_but_for_models_and_the_secret(filled, capsys):
    assert run("cache", "ls", "--json") == 0
    found = [(one["kind"], one["files"], one["bytes"]) for one in json.loads(capsys.readouterr().out)]
    assert found == [("answers", 1, 5), ("moments", 1, 7)]
    assert run("cache", "ls") == 0
    assert KINDS["answers"] in capsys.readouterr().out
    assert run("cache", "clear") == 0
    assert "2 files of 0.0 MB were removed" in capsys.readouterr().out
    assert sorted(path.name for path in filled.rglob("*") if path.is_file()) == ["config.json", SALT]
    assert run("cache", "ls") == 0
    assert "Nothing is kept." in capsys.readouterr().out


def test_a_folder_that_cannot_be_removed_is_told(filled, capsys, monkeypatch):
    def refuse(folder):
        raise PermissionError(folder)

    monkeypatch.setattr(kvw.cache.shutil, "rmtree", refuse)
    assert_refused(capsys, run("cache", "clear"), "The cache cannot be removed.", "answers")


def test_every_folder_of_the_cache_is_a_kind():
    source = Path(kvw.cache.__file__).parent
    named = {
        name
        for path in source.rglob("*.py")
        for name in re.findall(r'cache_directory\(\) / "(\w+)"', path.read_text("utf-8"))
    }
    assert named - {"models"} <= KINDS.keys()
    assert "answers" in named
