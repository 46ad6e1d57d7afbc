"""The command line in a record: all that was asked, and no place on the machine."""

from __future__ import annotations

import inspect
import shlex
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest

from kvw.cli import app
from kvw.cli.command import spelled
from kvw.cli.erase import KeepOptions, ScoreOptions
from kvw.cli.erase import erase as verb
from kvw.cli.options import DataOptions, LoadOptions, MethodOptions

HERE = Path("/home/anna/secret")
GIVEN = {
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
}
GROUPS = (KeepOptions, MethodOptions, LoadOptions, ScoreOptions, DataOptions)


def test_every_option_of_every_group_is_spelled_and_no_place_is():
    names = [field.name for group in GROUPS for field in fields(group)]
    assert set(names) == set(GIVEN)
    groups = {group.__name__: group(**{field.name: GIVEN[field.name] for field in fields(group)}) for group in GROUPS}
    files = {"forget": [HERE / "a.jsonl", HERE / "b.jsonl"], "retain": None, "out": HERE / "run"}
    found = spelled("erase", "owner/name", files, **groups, force=True, strict=False, value_matrices="")
    words = shlex.split(found)
    assert words[:9] == ["kvw", "erase", "owner/name", "--forget", "FORGET", "--forget", "FORGET", "--out", "OUT"]
    assert "secret" not in found
    assert "--retain" not in words
    for name in names:
        option = f"--{name.rstrip('_').replace('_', '-')}"
        assert option in words or f"--no-{option[2:]}" in words, name
    pairs = list(pairwise(words))
    for pair in [
        ("--eval", "theirs=FILE"),
        ("--eval", "mine=FILE"),
        ("--method", "mine.py:METHOD"),
        ("--neighbours", "NEIGHBOURS"),
        ("--set", "mu=3"),
        ("--keep", "0.5"),
    ]:
        assert pair in pairs
    assert "--no-retain-contrast" in words
    assert words[-1] == "--force"


def test_defaults_are_left_out():
    assert spelled("erase", "m", {"retain": None}, **{group.__name__: group() for group in GROUPS}) == "kvw erase m"


@pytest.mark.parametrize("name", inspect.signature(verb).parameters)
def test_every_parameter_of_erase_is_passed_on(name):
    """The words behind ``command=`` in the verb name each of its parameters."""
    source = inspect.getsource(verb)
    call = source[source.index("command=spelled(") : source.index("check_output(")]
    known = {"model": "checkpoint", "save_model": "save_model", "sign_key": "sign_key", "dry_run": "spelled"}
    assert known.get(name, name) in call


def test_it_can_be_typed():
    words = shlex.split(
        spelled("erase", "m", {"forget": [HERE], "out": HERE}, no_model=True, kept=KeepOptions(keep=0.5))
    )
    _, bound, *_ = app.parse_args(words[1:], exit_on_error=False, print_error=False)
    assert bound.arguments["save_model"] is False
    assert bound.arguments["kept"].keep == 0.5
