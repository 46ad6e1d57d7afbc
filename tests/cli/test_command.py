"""The command line in a record: all that was asked, and no place on the machine."""

from __future__ import annotations

import shlex
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

from kvw.cli import app
from kvw.cli.command import spelled
from kvw.cli.erase import EraseOptions
from kvw.cli.options import DataOptions, LoadOptions, MethodOptions

HERE = Path("/elsewhere/anna/secret")
GROUPS = {"options": MethodOptions, "load": LoadOptions, "read": DataOptions}
GIVEN = {
    "forget": [HERE / "a.jsonl", HERE / "b.jsonl"],
    "retain": HERE / "r.jsonl",
    "out": HERE / "run",
    "earlier": [HERE / "kept.safetensors"],
    "earlier_key": HERE / "earlier.pem",
    "requests": HERE / "requests",
    "register": HERE / "register.sqlite",
    "keep": 0.5,
    "neighbours": HERE / "names.txt",
    "retain_sources": "everyday",
    "write_damaged": True,
    "eval": [f"theirs={HERE / 'anna.jsonl'}", "mine=b.jsonl"],
    "eval_limit": 3,
    "max_new_tokens": 4,
    "strength": 0.25,
    "method": f"{HERE / 'mine.py'}:METHOD",
    "set_": ["mu=3", "gate=wiener"],
    "instead": "refusal",
    "layers": "1:2",
    "gamma": 0.1,
    "update_every": 2,
    "epochs": 3,
    "seed": 5,
    "positions": "all",
    "schedule": "one-shot",
    "retain_contrast": False,
    "min_tokens": 7,
    "parity": True,
    "device": "cpu",
    "quantise": "8bit",
    "template_option": ["thinking=false"],
    "columns": "image=photo",
    "answers": "all",
    "no_model": True,
    "sign_key": HERE / "key.pem",
    "dry_run": True,
    "show_examples": True,
    "value_matrices": "a.b",
    "force": True,
    "strict": True,
    "json": True,
}


def of_group(group):
    """The group with everything given."""
    names = [field.name for field in fields(group)]
    return group(**{name: of_group(GROUPS[name]) if name in GROUPS else GIVEN[name] for name in names})


def test_every_option_is_spelled_and_no_place_is():
    names = [field.name for group in (EraseOptions, *GROUPS.values()) for field in fields(group)]
    assert set(names) == {*GIVEN, *GROUPS}
    found = spelled("erase", "owner/name", of_group(EraseOptions))
    words = shlex.split(found)
    assert words[:7] == ["kvw", "erase", "owner/name", "--forget", "FORGET", "--forget", "FORGET"]
    assert "secret" not in found
    for name in GIVEN:
        option = f"--{name.rstrip('_').replace('_', '-')}"
        assert option in words or f"--no-{option[2:]}" in words, name
    pairs = list(pairwise(words))
    for pair in [
        ("--eval", "theirs=FILE"),
        ("--eval", "mine=FILE"),
        ("--method", "mine.py:METHOD"),
        ("--neighbours", "NEIGHBOURS"),
        ("--set", "mu=3"),
        ("--instead", "refusal"),
        ("--keep", "0.5"),
    ]:
        assert pair in pairs
    assert "--no-retain-contrast" in words


def test_defaults_are_left_out():
    assert spelled("erase", "m", EraseOptions(forget=[], out=HERE)) == "kvw erase m --out OUT"


def test_it_can_be_typed():
    words = shlex.split(spelled("erase", "m", EraseOptions(forget=[HERE], out=HERE, no_model=True, keep=0.5)))
    _, bound, *_ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert bound.arguments["asked"] == EraseOptions(forget=[Path("FORGET")], out=Path("OUT"), no_model=True, keep=0.5)
