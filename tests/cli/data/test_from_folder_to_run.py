"""From a folder as users have it to a finished run in two commands at most."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.data.user_folders import FOLDERS, GERMAN
from tests.program import run

ASKED = {"named_photos": 2, "documents": 1, "page_and_questions": 4, "completions": 1, "table_of_people": 7}
"""Forget examples, and of them those with pictures; 3 and 2 elsewhere."""
SEEN = {"named_photos": 2, "documents": 0, "page_and_questions": 0, "completions": 0, "table_of_people": 3}


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_two_commands_are_enough(folder, tmp_path, saved, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = FOLDERS[folder](tmp_path)
    assert len(commands) <= 2
    for command in commands:
        assert run(*(saved["llava"] if word == "MODEL" else word for word in command)) == 0
    record = json.loads(Path("run/run.json").read_text())
    assert record["forget"]["count"] == ASKED.get(folder, 3)
    assert record["forget"]["pictures"] == SEEN.get(folder, 3 if folder == "chat_messages" else 2)
    assert Path("run/edit.safetensors").is_file()


def test_the_folders_are_of_other_languages_too(tmp_path):
    FOLDERS["german_spreadsheet"](tmp_path)
    assert GERMAN[0] in (tmp_path / "Löschen.csv").read_text(encoding="utf-8")
