"""Methods that do not come with kvw: the documented example, from a folder outside of the repository, everywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.program import run

import kvw
from kvw.bench.cost.recipe import read_cost_recipe
from kvw.bench.cost.run import measure_row
from kvw.bench.recipe import read_recipe
from kvw.bench.record import RunFiles
from kvw.edits import load_edit
from kvw.methods.registry import get_method, installed

PAGES = Path(__file__).parents[2] / "docs" / "methods"
EXAMPLE = PAGES / "examples" / "halving.py"
PLACE = "halving.py:METHOD"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the example and somebody to forget."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLE, tmp_path)
    for name, people in (("forget", ("Ann", "Bob")), ("retain", ("Cid", "Dan", "Eve", "Fay", "Gus", "Hal"))):
        rows = [{"question": f"Who is {one}?", "answer": f"{one} is here.", "subject": one} for one in people]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def erase(saved, *more, method=PLACE):
    given = ("--forget", "forget.jsonl", "--retain", "retain.jsonl", "--out", "run", "--max-new-tokens", 2)
    return run("erase", saved["llava"], *given, "--no-model", "--write-damaged", "--method", method, *more)


def test_the_page_shows_the_example():
    assert EXAMPLE.read_text() in (PAGES / "own.md").read_text()


@pytest.mark.thorough
def test_it_is_listed_without_torch(folder):
    code = f"import sys; from kvw.cli import main\ntry: main(['methods', {PLACE!r}])\nfinally: print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    *listed, modules = shown.splitlines()
    assert "share = 0.05" in listed[0]
    assert "torch" not in modules.split()


@pytest.mark.thorough
def test_erase_chooses_its_strength(folder, saved):
    assert erase(saved, "--set", "share=0.25") == 0
    record, edit = json.loads((folder / "run" / "run.json").read_text()), load_edit("run/edit.safetensors")
    assert record["method"] == edit.metadata.method == "halving"
    assert record["settings"]["share"] == 0.25
    assert record["settings"]["chosen"]["strength"] > 0
    assert record["selection"]["unit"] == "strength"
    assert record["layers"][0]["weakened"] == record["layers"][0]["vectors"] // 4


@pytest.mark.thorough
def test_a_dry_run_goes_without_a_plan(folder, saved, capsys):
    assert erase(saved, "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["memory"] is None
    assert plan["seconds"]["choosing the strength"] > 0


@pytest.mark.thorough
def test_an_edit_without_anything_is_told(folder, saved, capsys):
    text = (folder / "halving.py").read_text()
    (folder / "halving.py").write_text(text.replace("GateEdit(log_gates)", "GateEdit({})"))
    assert erase(saved) == 2
    shown = capsys.readouterr().err
    assert "Nothing would be weakened" in shown
    assert "Traceback" not in shown
    left = "GateEdit({}, EditMetadata(left_alone=('layer.0.expert.1',)))"
    (folder / "other.py").write_text(
        text.replace("GateEdit(log_gates)", left).replace("import GateEdit", "import EditMetadata, GateEdit")
    )
    assert erase(saved, method="other.py:METHOD") == 2
    assert "1 experts with too few answer tokens" in " ".join(capsys.readouterr().err.split())


RECIPE = """
title = "own"
[benchmark]
name = "toy"
[models]
vanilla = "toy:vanilla"
[evaluation]
at_most = 1
tasks = ["forget/seen", "retain/seen"]
[[method]]
name = "halving.py:METHOD"
share = [0.1, 0.3]
"""
COST = """
title = "own"
[model]
config = "toy:vanilla"
device = "cpu"
[data]
forget = 2
retain = 2
question = 6
answer = 3
[[method]]
name = "halving.py:METHOD"
"""


@pytest.mark.thorough
@pytest.mark.usefixtures("small_toy")
def test_a_benchmark_runs_it_and_another_file_is_another_method(folder, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(folder / "cache"))
    (folder / "recipe.toml").write_text(RECIPE)
    assert run("bench", "run", "recipe.toml", "--out", "out") == 0
    names = [name for name in RunFiles(folder / "out").manifest().requests if name.startswith("halving-")]
    assert len(names) == 2
    assert all(RunFiles(folder / "out").record(name).edit_digest for name in names)
    with (folder / "halving.py").open("a") as file:
        file.write("# another version\n")
    get_method.__globals__["_from_file"].cache_clear()
    assert run("bench", "run", "recipe.toml", "--out", "out") == 0
    again = [name for name in RunFiles(folder / "out").manifest().requests if name.startswith("halving-")]
    assert not set(names) & set(again)


@pytest.mark.thorough
def test_its_cost_is_measured(folder):
    (folder / "recipe.toml").write_text(COST)
    recipe = read_cost_recipe(folder / "recipe.toml")
    *_, (label, method, values) = recipe.rows
    row = measure_row(recipe, label, method, values)
    assert (row.label, [stage.name for stage in row.stages]) == ("halving", ["making the edit"])
    assert row.flops > 0


def test_a_recipe_names_its_settings(folder):
    (folder / "recipe.toml").write_text(RECIPE.replace("share =", "shar ="))
    with pytest.raises(kvw.UserError, match=r"no setting 'shar' in method halving"):
        read_recipe(folder / "recipe.toml")


@pytest.fixture
def package(folder, monkeypatch):
    """The example as an installed package with an entry point."""

    def install(name="halving"):
        facts = folder / "own_methods-1.0.dist-info"
        facts.mkdir(exist_ok=True)
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: own-methods\nVersion: 1.0\n")
        (facts / "entry_points.txt").write_text(f"[kvw.methods]\n{name} = halving:METHOD\n")
        monkeypatch.syspath_prepend(str(folder))

    yield install
    sys.modules.pop("halving", None)


def test_a_package_adds_it_by_an_entry_point(package, capsys):
    package()
    assert "halving" in installed()
    assert get_method("halving").version == "own-methods 1.0"
    assert run("methods") == 0
    assert "Halving: the knowledge vectors" in capsys.readouterr().out
    assert run("methods", "halving") == 0
    assert "share = 0.05" in capsys.readouterr().out


def test_a_package_cannot_take_a_name_of_ours(package):
    package("subspace")
    assert installed().count("subspace") == 1
    assert not get_method("subspace").version


def test_an_entry_point_has_the_name_of_its_method(package):
    package("other-name")
    with pytest.raises(kvw.UserError, match=r"needs a name of its own(.|\n)*'halving'"):
        get_method("other-name")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (None, "missing.py:METHOD", ["There is no file", "missing.py"]),
        ("", "own.py", ["Which object", "own.py:METHOD"]),
        ("", "own.py:METHOD", ["cannot be loaded", "AttributeError"]),
        ("1 / 0", "own.py:METHOD", ["cannot be loaded", "ZeroDivisionError"]),
        ("METHOD = 3", "own.py:METHOD", ["is no method", "int"]),
        ('name, settings = "kvw", Settings', "own.py:METHOD", ["needs a name of its own", "'kvw'"]),
        ('name, settings = "a/b", Settings', "own.py:METHOD", ["needs a name of its own", "'a/b'"]),
        ('name, settings = "mine", dict', "own.py:METHOD", ["no dataclass of settings"]),
        ("name = 'mine'", "own.py:METHOD", ["no dataclass of settings"]),
    ],
)
def test_what_is_no_method_is_one_message(folder, capsys, text, place, words):
    if text is not None:
        written = "name, settings" in text or text.startswith("name")
        own = EXAMPLE.read_text().replace('name, settings = "halving", Settings', text) if written else text
        (folder / "own.py").write_text(own)
    assert run("methods", place) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert all(word in shown for word in words), shown
    assert "Traceback" not in shown


def test_the_card_of_an_edit_runs_no_file(folder):
    from kvw.pages.card import options

    (folder / "evil.py").write_text("raise SystemExit('it was run')")
    assert options({}, "evil.py:METHOD") == "--method evil.py:METHOD"
