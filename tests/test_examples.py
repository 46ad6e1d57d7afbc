"""The example data: they can be read, and the subjects that nobody names are named by nobody."""

from __future__ import annotations

from pathlib import Path

from kvw.data import read_examples

SMOLLM2 = Path(__file__).parents[1] / "examples" / "smollm2"


def test_subjects_of_the_pretrained_example_do_not_overlap() -> None:
    found = {path.stem: read_examples(path) for path in SMOLLM2.glob("*.jsonl")}
    subjects = {name: {example.subject for example in examples} for name, examples in found.items()}
    assert len(subjects["forget"]) == 3
    assert subjects["held_out"] == subjects["forget"]
    assert not subjects["forget"] & subjects["retain"]
    assert not subjects["unused"] & (subjects["forget"] | subjects["retain"])
    asked = {example.question for example in found["forget"]}
    assert not asked & {example.question for example in found["held_out"]}
