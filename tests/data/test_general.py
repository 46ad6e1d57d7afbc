"""The questions of general ability: what they are, and that no run uses them for anything else."""

from __future__ import annotations

import hashlib
import json
import runpy
from collections import Counter
from pathlib import Path

import pytest

from kvw.cli.options import parse_splits
from kvw.data import general
from kvw.data.general import GENERAL
from kvw.data.readers import read_examples
from kvw.errors import UserError
from kvw.folding import collapsed
from kvw.retain.everyday import everyday_questions
from kvw.retain.pictures import picture_questions

ROOT = Path(__file__).parents[2]


def test_they_are_read_like_any_data_file():
    words, pictures = (read_examples(path) for path in GENERAL.values())
    assert set(Counter(one.subject for one in words).values()) == {10}
    assert len(words) == 100
    assert not any(one.images for one in words)
    assert all(len(one.images) == 1 for one in pictures)
    assert len({one.question for one in words}) == 100


def test_nothing_of_them_is_in_what_must_stay():
    """They would not be held out if an edit were made or chosen with them."""
    asked = {collapsed(one.question) for one in read_examples(GENERAL["general"])}
    kept = {collapsed(one) for one in everyday_questions()}
    assert not asked & kept
    drawn = {hashlib.sha256(image).hexdigest() for one in picture_questions() for image in one.images}
    shown = {hashlib.sha256(path.read_bytes()).hexdigest() for path in GENERAL["general-pictures"].parent.glob("*.png")}
    assert len(shown) == 16
    assert not drawn & shown


def test_their_names_stand_for_their_files():
    assert parse_splits(["general", "a=b.jsonl", "general-pictures"]) == {**GENERAL, "a": Path("b.jsonl")}
    with pytest.raises(UserError, match="general, general-pictures"):
        parse_splits(["generel"])


def test_the_pictures_are_those_that_the_script_draws(tmp_path, monkeypatch):
    script = runpy.run_path(str(ROOT / "benchmarks" / "general_pictures.py"))
    shipped = GENERAL["general-pictures"]
    monkeypatch.setitem(general.GENERAL, "general-pictures", tmp_path / "pictures.jsonl")
    script["main"]()
    rows = [json.loads(line) for line in (tmp_path / "pictures.jsonl").read_text().splitlines()]
    assert rows == [json.loads(line) for line in shipped.read_text().splitlines()]
    assert {path.name for path in tmp_path.glob("*.png")} == {row["image"] for row in rows}
    assert {path.name for path in shipped.parent.glob("*.png")} == {row["image"] for row in rows}
