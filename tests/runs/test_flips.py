"""One changed byte in whatever is kept between runs is found, and the result is that of a clean cache."""

from __future__ import annotations

import json
import os
from itertools import product
from pathlib import Path

import pytest
import torch
from PIL import Image

from kvw.cli import main
from kvw.errors import UserError
from kvw.measuring.kept import KeptStatistics
from kvw.measuring.statistics import Statistics
from kvw.models.value_matrix import MatrixKey

PLACES = (0, 0.1, 0.5, 0.9, 1)
"""Of the flipped byte, as a share of the file."""


def flipped(content, place, bit):
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


def statistics():
    sums = {MatrixKey(1): torch.rand(5, dtype=torch.float64), MatrixKey(2): torch.rand(3, dtype=torch.float64)}
    return Statistics(sums, {MatrixKey(1): 4, MatrixKey(2): 7}, {"data": "abc"})


@pytest.mark.parametrize("bit", [1, 4, 32, 128])
def test_every_byte_of_a_statistics_file_counts(tmp_path, bit):
    path = tmp_path / "a.safetensors"
    statistics().save(path)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(flipped(content, place, bit))
        with pytest.raises(UserError, match="statistics file"):
            Statistics.load(path)


def test_damaged_statistics_of_the_cache_are_told_and_measured_again(caplog):
    kept = KeptStatistics({"data": "abc"})
    kept.keep_finished(statistics())
    (path,) = (Path(os.environ["KVW_CACHE"]) / "statistics").iterdir()
    content = path.read_bytes()
    path.write_bytes(flipped(content, len(content) - 9, 1))
    assert kept.finished() is None
    assert f"{path} is damaged" in caplog.text


@pytest.fixture
def erase(saved, tmp_path, monkeypatch):
    """Erases with a cache of its own; returns what differs between no two runs, and what is said of damage."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "cache"))
    for part in ("forget", "retain"):
        Image.new("RGB", (24, 20), (90, len(part), 120)).save(f"{part}.png")
        rows = [{"question": f"Who is {n}?", "answer": f"{part} {n}", "image": f"{part}.png"} for n in range(3)]
        Path(f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run():
        more = ["--method", "kvw", "--gamma", "1", "--no-model", "--force", "--max-new-tokens", "2", "--out", "run"]
        more.append("--write-damaged")  # random weights lose by chance what they never knew
        with pytest.raises(SystemExit) as stop:
            main(["erase", str(saved["llava"]), "--forget", "forget.jsonl", "--retain", "retain.jsonl", *more])
        assert not stop.value.code
        record = json.loads(Path("run/run.json").read_bytes())
        damaged = [warning for warning in record.pop("warnings") if "damaged" in warning]
        for name in ("finished", "costs", "retain_statistics_reused"):
            del record[name]
        return (Path("run/edit.safetensors").read_bytes(), Path("run/samples.jsonl").read_bytes(), record), damaged

    return run


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["digests", "statistics", "answers"])
def test_a_flipped_byte_in_the_cache_changes_no_result(erase, tmp_path, kind):
    clean, damaged = erase()
    files = {path: path.read_bytes() for path in (tmp_path / "cache").glob("*/*")}  # the salt has tests of its own
    assert {path.parent.name for path in files} == {"digests", "statistics", "answers"}
    assert not damaged
    assert erase() == (clean, [])
    # Of answers there are two files: to the questions of the data, and to those about ordinary language.
    for path, share in product([path for path in files if path.parent.name == kind], PLACES):
        # An empty line in front of the answers means nothing.
        place = max(int(share * (len(files[path]) - 1)), int(kind == "answers"))
        for kept, content in files.items():
            kept.write_bytes(content)
        path.write_bytes(flipped(files[path], place, 2))
        found, (damaged,) = erase()
        assert found == clean
        assert f"{path.parent.name}/{path.name} is damaged" in damaged
        assert erase() == (clean, [])
