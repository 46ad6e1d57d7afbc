"""Whole runs from Python take what the commands take."""

from __future__ import annotations

import inspect
import json
import re
from base64 import b64encode
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tests.program import run

import kvw
from kvw.evidence import keys
from kvw.runs import erase as runs
from kvw.runs import python
from kvw.sealed import seal

NOT_FROM_PYTHON = {
    "--model": "it is the first argument",
    "--dry-run": "it prints a plan for a person",
    "--requests": "lists of files say it, as forget and earlier",
    "--register": "it goes with --requests",
    "--json": "erase returns the record; record.model_dump_json() is what the option prints",
    "--strict": "record.warnings says whether there were any",
}
SAME_REQUEST = {
    "--forget": (["--forget", "more.jsonl"], {"forget": ["forget.jsonl", Path("more.jsonl")]}),
    "--retain": (["--retain", "retain.jsonl"], {"retain": "retain.jsonl"}),
    "--out": (["--out", "other"], {"out": Path("other")}),
    "--earlier": (["--earlier", "k.safetensors", "--strength", "1"], {"earlier": ["k.safetensors"], "strength": 1}),
    "--earlier-key": (
        ["--earlier", "s.safetensors", "--earlier-key", "key.txt", "--strength", "1"],
        {"earlier": ["s.safetensors"], "earlier_key": "key.txt", "strength": 1},
    ),
    "--keep": (["--keep", "0.9"], {"keep": 0.9}),
    "--neighbours": (["--neighbours", "names.txt"], {"neighbours": "names.txt"}),
    "--retain-sources": (["--retain-sources", "facts,text"], {"retain_sources": ["facts", "text"]}),
    "--write-damaged": (["--write-damaged"], {"write_damaged": True}),
    "--strength": (["--strength", "0.5"], {"strength": 0.5}),
    "--method": (["--method", "leace"], {"method": "leace"}),
    "--instead": (["--instead", "refusal"], {"settings": {"instead": "refusal"}}),
    "--set": (["--set", "rank=8", "--set", "sources.answer=1"], {"settings": {"rank": 8, "sources": {"answer": 1}}}),
    "--layers": (["--layers", "1:3"], {"settings": {"layers": (1, 3)}}),
    "--schedule": (["--schedule", "sequential"], {"settings": {"schedule": "sequential"}}),
    "--min-tokens": (["--min-tokens", "4"], {"settings": {"min_tokens": 4}}),
    "--eval": (["--eval", "new=more.jsonl"], {"eval": {"new": "more.jsonl"}}),
    "--eval-limit": (["--eval-limit", "3"], {"eval_limit": 3}),
    "--max-new-tokens": (["--max-new-tokens", "7"], {"max_new_tokens": 7}),
    "--no-model": (["--no-model"], {"save_model": False}),
    "--show-examples": (["--show-examples"], {"show_examples": True}),
    "--columns": (["--columns", "question=q,answer=a"], {"columns": {"question": "q", "answer": "a"}}),
    "--answers": (["--answers", "all"], {"answers": "all"}),
    "--sign-key": (["--sign-key", "key.pem"], {"sign_key": "key.pem"}),
    "--force": (["--force"], {"force": True}),
    "--device": (["--device", "cpu"], {"device": "cpu"}),
    "--quantise": (["--quantise", "8bit"], {"quantise": "8bit"}),
    "--template-option": (["--template-option", "shown=false"], {"template_options": {"shown": False}}),
    "--value-matrices": (["--value-matrices", "a.b"], {"value_matrices": "a.b"}),
}
OF_KVW = {
    "--gamma": (["--gamma", "0.1"], {"gamma": 0.1}),
    "--update-every": (["--update-every", "2"], {"update_every": 2}),
    "--epochs": (["--epochs", "2"], {"epochs": 2}),
    "--seed": (["--seed", "5"], {"seed": 5}),
    "--positions": (["--positions", "all"], {"positions": "all"}),
    "--no-retain-contrast": (["--no-retain-contrast"], {"retain_contrast": False}),
    "--parity": (["--parity"], {"parity": True}),
}


@pytest.fixture
def requests(tmp_path, monkeypatch, saved):
    """What runs were asked, in the place of doing them; and a model to ask them of."""
    monkeypatch.chdir(tmp_path)
    for name in ("forget", "retain", "more"):
        rows = [{"question": f"{name} {n}?", "answer": f"This is {n}."} for n in range(6)]
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("names.txt").write_text("Ann\nBob\n")
    save_file({}, "k.safetensors", {"salt": "", "subjects": "[]"})
    Path("s.safetensors").write_bytes(seal(Path("k.safetensors").read_bytes(), "x", bytes(32)))
    Path("key.txt").write_bytes(b64encode(bytes(32)))
    asked = []

    def ask(request, *_):
        asked.append(replace(request, command=""))  # only a command has a line
        raise kvw.UserError("asked")

    for place in (keys, python):
        monkeypatch.setattr(place, "private_key", lambda path: None)  # keys have tests of their own
    monkeypatch.setattr(runs, "erase", ask)

    def both(options, keywords):
        """The request of the command and that of the call."""
        with redirect_stderr(StringIO()):
            assert run("erase", saved["llava"], *options) == 2
        with pytest.raises(kvw.UserError, match="asked"):
            kvw.erase(**{"model": saved["llava"], **keywords})
        return asked

    return both


def options_of_the_command():
    with redirect_stdout(StringIO()) as told:
        assert run("erase", "--help") == 0
    return set(re.findall(r"(?<![\w`-])--[a-z][a-z-]+", told.getvalue()))


@pytest.mark.thorough
def test_every_option_has_a_keyword_or_a_reason():
    known = {*SAME_REQUEST, *OF_KVW, *NOT_FROM_PYTHON}
    opposite = {"--no-model": "--save-model", "--no-retain-contrast": "--retain-contrast"}
    assert options_of_the_command() - known <= set(opposite.values())
    assert known <= options_of_the_command()
    given = {name for _, keywords in SAME_REQUEST.values() for name in keywords}
    named = {name for name, one in inspect.signature(kvw.erase).parameters.items() if one.kind is one.KEYWORD_ONLY}
    keywords = (named | set(kvw.EraseOptions.__annotations__)) - {"reporter"}
    assert keywords == given  # so a keyword that no option has would be noticed too


@pytest.mark.thorough
@pytest.mark.parametrize("option", SAME_REQUEST)
def test_a_keyword_asks_what_the_option_asks(requests, option):
    options, keywords = SAME_REQUEST[option]
    given = ["--forget", "forget.jsonl", *([] if option == "--out" else ["--out", "run"]), *options]
    typed, called = requests(given, {"forget": "forget.jsonl", "out": "run", **keywords})
    assert typed == called
    _, default = requests(["--forget", "forget.jsonl", "--out", "run"], {"forget": "forget.jsonl", "out": "run"})[-2:]
    assert called != default


@pytest.mark.thorough
@pytest.mark.parametrize("option", OF_KVW)
def test_settings_of_a_method_ask_what_their_options_ask(requests, option):
    options, settings = OF_KVW[option]
    given = ["--forget", "forget.jsonl", "--out", "run", "--retain", "retain.jsonl", "--method", "kvw"]
    keywords = {"forget": "forget.jsonl", "out": "run", "retain": "retain.jsonl", "method": "kvw"}
    typed, called = requests([*given, *options], {**keywords, "settings": settings})
    assert typed == called
    _, same = requests(given, {**keywords, "settings": kvw.KvwSettings(**settings)})[-2:]
    assert same.settings == called.settings
    _, default = requests(given, keywords)[-2:]
    assert called != default


@pytest.mark.parametrize("strength", ["auto", None, 1.0])
@pytest.mark.parametrize("mu", [None, 0.5, 2])
def test_the_strength_is_chosen_where_the_command_chooses_it(requests, strength, mu):
    options = [*(["--strength", str(strength)] if strength else []), *(["--set", f"mu={mu}"] if mu else [])]
    settings = {} if mu is None else {"mu": mu}
    keywords = {"forget": "forget.jsonl", "out": "run", "strength": strength, "settings": settings}
    typed, called = requests(["--forget", "forget.jsonl", "--out", "run", *options], keywords)
    assert typed == called
    assert typed.chooses == called.chooses == (strength == "auto" or (strength, mu) == (None, None))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"strength": 0.5, "settings": {"strength": 1}}, "given twice"),
        ({"strength": 0.5, "settings": kvw.SubspaceSettings()}, "one of the settings that are given"),
        ({"settings": kvw.KvwSettings()}, "not the settings of method subspace"),
        ({"settings": {"rnk": 8}}, "no setting 'rnk'"),
        ({"method": "sub"}, "subspace"),
        ({"model": "toy:vanila"}, "There is no model"),
        ({"template_options": {"x": float("nan")}}, "Template option 'x'"),
        ({"template_options": {"x": {1, 2}}}, "Template option 'x'"),
        ({"keep": 2}, "--keep"),
        ({"sign_key": "nowhere.pem"}, r"nowhere\.pem|Signatures need"),
    ],
    ids=str,
)
def test_mistakes_end_in_a_plain_message(saved, tmp_path, more, words):
    given = {"model": saved["llava"], "forget": "forget.jsonl", "out": tmp_path / "run", **more}
    with pytest.raises(kvw.UserError, match=words):
        kvw.erase(**given)
    assert not (tmp_path / "run").exists()


def test_a_keyword_that_does_not_exist_is_refused(saved, tmp_path):
    with pytest.raises(TypeError, match=r"erase\(\) got an unexpected keyword argument 'retian'"):
        kvw.erase(saved["llava"], forget="forget.jsonl", out=tmp_path / "run", retian="retain.jsonl")


@pytest.mark.thorough
def test_models_are_found_by_folder_and_name(saved):
    assert kvw.find_checkpoint(saved["llava"]) == kvw.find_checkpoint(str(saved["llava"]))
    assert kvw.find_checkpoint("toy:vanilla").name == "toy:vanilla"
    model = kvw.load_model(str(saved["llava"]), "cpu")
    other = kvw.load_model(saved["llava"], "cpu")
    assert model.config.model_type == other.config.model_type == "llava"
    assert type(kvw.load_processor(saved["llava"])) is type(kvw.load_processor(str(saved["llava"])))


@pytest.mark.thorough
def test_a_run_and_its_edit_from_python(saved, tmp_path):
    rows = {name: [{"question": f"{name} {n}?", "answer": f"This is {n}."} for n in range(6)] for name in "fr"}
    for name, some in rows.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    with pytest.warns(UserWarning, match="forget answers before any edit") as warned:
        record = kvw.erase(
            saved["llava"],
            forget=str(tmp_path / "f.jsonl"),
            retain=tmp_path / "r.jsonl",
            out=str(tmp_path / "run"),
            strength=1,
            max_new_tokens=2,
            write_damaged=True,
        )
    assert [str(one.message) for one in warned if one.category is UserWarning] == record.warnings
    assert record.splits["forget"].original.count == 6
    assert record.model_dump_json(indent=2) + "\n" == (tmp_path / "run" / "run.json").read_text()
    edit = str(tmp_path / "run" / "edit.safetensors")
    applied = kvw.apply(edit, saved["llava"], out=str(tmp_path / "applied"))
    assert applied.language is not None
    written = load_file(tmp_path / "applied" / "model.safetensors")
    expected = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert all((written[name] == value).all() for name, value in expected.items())
    assert "| `forget` | 6 of 6 |" in (tmp_path / "applied" / "README.md").read_text()  # run.json lies beside the edit
    again = kvw.apply(kvw.load_edit(edit), saved["llava"], out=tmp_path / "again", check=False)
    assert again.language is None
    assert "| `forget` | 6 of 6 |" not in (tmp_path / "again" / "README.md").read_text()
