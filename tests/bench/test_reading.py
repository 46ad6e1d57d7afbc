"""TOML within bounds, and grids that are refused before they are made."""

from __future__ import annotations

import itertools

import pytest

from kvw.bench.cost.recipe import read_cost_recipe
from kvw.bench.reading import DEEPEST, LARGEST_INTEGER, MOST_BYTES, read_toml
from kvw.bench.recipe import read_recipe
from kvw.errors import UserError
from kvw.methods.registry import get_method


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = ", "is not a TOML file"),
        ("x = 1\nx = 2", "is not a TOML file"),
        (b"x = '\xff'", "is not a TOML file"),
        (f"x = {'9' * 5000}", "is not a TOML file"),
        (f"x = [{LARGEST_INTEGER + 1}]", "holds an integer beyond 64 bits"),
        (f"x = -{'9' * 300}", "holds an integer beyond 64 bits"),
        ("x = " + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "nested more than 16 levels deep"),
        ("x = " + "[" * 100_000, "nested more than 16 levels deep"),
        ("x = " + "{a=" * 50_000 + "1" + "}" * 50_000, "nested more than 16 levels deep"),
        ("[" + ".".join("a" * 300) + "]", "nested more than 16 levels deep"),
        ("x = '" + "a" * MOST_BYTES + "'", "too large"),
    ],
)
@pytest.mark.parametrize("read", [read_toml, read_recipe, read_cost_recipe])
def test_what_no_person_writes_is_one_message(tmp_path, text, message, read):
    path = tmp_path / "r.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as raised:
        read(path)
    assert len(str(raised.value)) < 1000


def test_toml_is_read_as_ever(tmp_path):
    (tmp_path / "r.toml").write_text(f'a = {LARGEST_INTEGER}\n[b]\nc = [[1, -2.5], ["Å"]]\n')
    assert read_toml(tmp_path / "r.toml") == {"a": LARGEST_INTEGER, "b": {"c": [[1, -2.5], ["Å"]]}}


@pytest.mark.parametrize("method", ["kvw", "npo"])
def test_a_huge_grid_is_refused_before_it_is_made(method, monkeypatch):
    monkeypatch.setattr(itertools, "product", lambda *_: pytest.fail("it was made"))
    key, other = {"kvw": ("gamma", "epochs"), "npo": ("beta", "learning_rate")}[method]
    found = "10,100, of which every one would be tried; at most 10,000"
    with pytest.raises(UserError, match=f"{method} have too many combinations[\\s\\S]*{found}"):
        get_method(method).combinations({key: [0.1] * 101, other: [1] * 100})


@pytest.mark.thorough
def test_a_name_of_a_megabyte_is_not_repeated(tmp_path):
    (tmp_path / "r.toml").write_text(
        'title = "t"\n[benchmark]\nname = "' + "a" * 10**6 + '"\n[models]\nvanilla = "x"\n'
    )
    with pytest.raises(UserError, match="There is no benchmark 'aaa") as raised:
        read_recipe(tmp_path / "r.toml")
    assert len(str(raised.value)) < 1000
