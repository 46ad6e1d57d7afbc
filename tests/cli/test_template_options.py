"""``--template-option`` reaches the chat template, every prompt, and the records."""

from __future__ import annotations

import json

import pytest
from tests import text_models
from tests.program import assert_refused, run

from kvw.cli.options import parse_template_options
from kvw.data import Example, render
from kvw.errors import UserError
from kvw.evaluation.loaded import Loaded
from kvw.models.loading import Checkpoint

TEMPLATE = (
    "{% if style is defined %}<|im_start|>system\nBe {{ style }}.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}"
    "{# </think> #}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = text_models.save("qwen3", tmp_path_factory.mktemp("model"))
    (folder / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    return folder


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, question in (("q", "Who?"), ("r", "Where?")):
        row = {"question": question, "answer": "Ada"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    return "q.jsonl"


def test_values_are_json_or_text():
    entries = ["a=false", "b=1.5", "c=low", 'd={"e": [null]}', "f=", "g=x=y"]
    expected = (("a", False), ("b", 1.5), ("c", "low"), ("d", {"e": [None]}), ("f", ""), ("g", "x=y"))
    assert parse_template_options(entries) == expected


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["thinking"], "needs a name and a value"),
        (["=1"], "needs a name and a value"),
        (["a=1", "a=2"], "'a' is given twice"),
        (["a=False"], "write a=false"),
        (["a=NaN"], "cannot be used"),
        (["a=" + "[" * 100_000], "cannot be used"),
    ],
)
def test_entries_that_make_no_sense(entries, words):
    with pytest.raises(UserError, match=words):
        parse_template_options(entries)


@pytest.mark.thorough
def test_an_option_changes_prompts_fingerprints_and_the_protocol(folder):
    found = {
        options: Loaded.load(Checkpoint(folder, "m", template_options=options), "cpu")
        for options in ((), (("style", "brief"),), (("enable_thinking", True),))
    }
    example = Example("Who?", "Ada")
    prompts = [render(example, loaded.processor).prompt for loaded in found.values()]
    plain = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    system = "<|im_start|>system\nBe brief.<|im_end|>\n"
    assert prompts == [plain, system + plain, plain + "<think>\n\n</think>\n\n"]
    assert len({loaded.conditions([example])["prompt template"] for loaded in found.values()}) == 3
    assert [loaded.prompt for loaded in found.values()] == [
        "the model's own chat template",
        'the model\'s own chat template with style="brief"',
        "the model's own chat template with enable_thinking=true",
    ]


@pytest.mark.parametrize("verb", ["evaluate", "measure", "erase", "chat", "serve"])
def test_every_verb_that_loads_a_model_takes_the_option(verb, folder, data, capsys):
    arguments = {
        "evaluate": ("--data", data),
        "measure": ("--data", data, "--out", "s.safetensors"),
        "erase": ("--forget", data, "--retain", "r.jsonl", "--out", "run"),
        "chat": ("--ask", "Who?"),
        "serve": ("--allow-plain", "--port", "0"),
    }[verb]
    code = run(verb, folder, *arguments, "--template-option", "stile=brief")
    assert_refused(capsys, code, "no option 'stile'")


@pytest.mark.thorough
def test_the_option_is_in_the_record_of_a_run(folder, data, tmp_path):
    common = ("--forget", data, "--retain", "r.jsonl", "--method", "kvw", "--layers", "0:3", "--max-new-tokens", 2)
    code = run("erase", folder, *common, "--no-model", "--out", "run", "--template-option", "style=brief")
    assert code == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    assert record["protocol"] == 'zero-shot, greedy, the model\'s own chat template with style="brief"'


def test_a_server_has_its_own_options(data, capsys):
    code = run("evaluate", "--endpoint", "http://localhost:1/v1", "--data", data, "--template-option", "style=brief")
    assert_refused(capsys, code, "--template-option cannot be combined with --endpoint", "style=brief")
