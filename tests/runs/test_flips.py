"""One changed byte in whatever is kept between runs is found, and the result is that of a clean cache."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from kvw.cli import main
from kvw.errors import UserError
from kvw.measuring.kept import KeptStatistics
from kvw.measuring.statistics import Statistics
from kvw.models.value_matrix import MatrixKey


def flipped(content, place, bit):
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


def statistics():
    sums = {MatrixKey(1): torch.rand(5, dtype=torch.float64), MatrixKey(2): torch.rand(3, dtype=torch.float64)}
    return Statistics(sums, {MatrixKey(1): 4, MatrixKey(2): 7}, {"data": "abc"})


@pytest.mark.thorough
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
        for name in ("finished", "costs", "retain_statistics_reused", "nonce"):
            del record[name]
        return (Path("run/edit.safetensors").read_bytes(), Path("run/samples.jsonl").read_bytes(), record), damaged

    return run


@pytest.mark.thorough
def test_a_flipped_byte_in_every_file_of_the_cache_changes_no_result(erase, tmp_path):
    """One byte of each; the readers have tests of every byte: here, in ``test_checked`` and in ``test_journal``."""
    clean, damaged = erase()
    files = sorted((tmp_path / "cache").glob("*/*"))  # the salt has tests of its own
    # Of answers there are two files: to the questions of the data, and to those about ordinary language.
    assert [path.parent.name for path in files] == ["answers", "answers", "digests", "statistics"]
    assert not damaged
    assert erase() == (clean, [])
    for path in files:
        content = path.read_bytes()
        path.write_bytes(flipped(content, len(content) // 2, 2))
    found, damaged = erase()
    assert found == clean
    told = [[path for path in files if f"{path.parent.name}/{path.name} is damaged" in text] for text in damaged]
    assert sorted(told) == [[path] for path in files]
    assert erase() == (clean, [])
