"""Which chat template a model is asked with, its variables, and its bounds."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
from tests import text_models, tiny_models
from tests.data.test_rendering import with_template
from transformers import AutoTokenizer

from kvw.data import Example, TextProcessor, bounded, render
from kvw.data.templates import chat_template, check_bounds, with_options
from kvw.errors import UserError
from kvw.measuring.fingerprint import processor_parts
from kvw.models.loading import find_checkpoint, load_processor

TEXT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PUBLISHED = Path(__file__).parent / "templates"
TOOLS = "{{ raise_exception('only with tools') }}"
ENDLESS = "".join(f"{{% for {name} in range(99999) %}}" for name in "abc") + "{% endfor %}" * 3
DOUBLING = "{% set ns = namespace(x='ab') %}{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"
BEYOND = {
    "loop": (ENDLESS, "does not end within"),
    "loop at a picture": ("{% if messages[0]['content'][1] %}" + ENDLESS + "{% endif %}", "does not end"),
    "memory": (DOUBLING, "more than 512 MiB"),
    "memory at once": ("{{ 'a' * 99999999999 }}", "more than 512 MiB"),
    "recursion": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "calls itself without end"),
    "output": ("{% for i in range(9999) %}{{ 'word ' * 99 }}{% endfor %}", "it writes 4,9"),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return text_models.save("qwen3", tmp_path_factory.mktemp("model"))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(bounded, "SECONDS", 1)


def templates_in(folder, tmp_path, templates):
    """A copy of a checkpoint with these templates in its tokenizer's configuration."""
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    for file in copy.glob("*.jinja"):
        file.unlink()
    settings = json.loads((copy / "tokenizer_config.json").read_text("utf-8"))
    (copy / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": templates}), "utf-8")
    return load_processor(find_checkpoint(str(copy)))


@pytest.mark.parametrize(
    "templates",
    [
        TEXT,
        [{"name": "tool_use", "template": TOOLS}, {"name": "default", "template": TEXT}],
        {"tool_use": TOOLS, "default": TEXT},
        {"chat": TEXT},
    ],
)
def test_templates_in_the_tokenizers_configuration(folder, tmp_path, templates):
    processor = templates_in(folder, tmp_path, templates)
    rendered = render(Example("Who?", "Ada"), processor)
    assert rendered.prompt == "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    assert processor_parts(processor) == processor_parts(with_text(processor, TEXT))


def with_text(processor, template):
    changed = TextProcessor(processor.tokenizer)
    changed.chat_template = template
    return changed


def test_templates_in_files_of_their_own(folder, tmp_path):
    copy = tmp_path / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = {"default": TEXT, "tool_use": TOOLS}
    tokenizer.save_pretrained(copy)
    shutil.copy(folder / "config.json", copy)
    assert (copy / "chat_template.jinja").is_file()
    assert (copy / "additional_chat_templates" / "tool_use.jinja").is_file()
    assert chat_template(load_processor(find_checkpoint(str(copy)))) == TEXT


def test_several_templates_without_a_default_one(folder, tmp_path):
    with pytest.raises(UserError, match=r"none is the default one[\s\S]*rag, tool_use"):
        templates_in(folder, tmp_path, {"rag": TEXT, "tool_use": TOOLS})


@pytest.mark.parametrize("kind", [str, dict])
def test_a_processor_takes_the_template_of_its_tokenizer(kind):
    _, processor = tiny_models.build("qwen2_vl")
    own = processor.chat_template
    expected = render(Example("Who?", "Ada", (tiny_models.noise_png(1),)), processor)
    bare = with_template(processor, None)
    bare.tokenizer.chat_template = own if kind is str else {"default": own, "tool_use": TOOLS}
    assert render(Example("Who?", "Ada", (tiny_models.noise_png(1),)), bare) == expected
    named = with_template(processor, {"tool_use": TOOLS, "default": own})
    assert render(Example("Who?", "Ada", (tiny_models.noise_png(1),)), named) == expected


def test_a_template_that_asks_for_the_date_does_not_depend_on_the_day(folder):
    dated = TEXT.replace("{% for m", "{{ 'Today: ' + strftime_now('%Y-%m-%d') + '\n' }}{% for m", 1)
    processor = with_text(load_processor(find_checkpoint(str(folder))), dated)
    assert render(Example("Who?", "Ada"), processor).prompt.startswith("Today: 2024-07-26\n<|im_start|>user")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.thorough) if "picture" in case else case for case in BEYOND]
)
def test_templates_beyond_the_bounds(case, quick, folder, tmp_path):
    template, words = BEYOND[case]
    if case != "loop at a picture":
        with pytest.raises(UserError, match=rf"The chat template of model cannot be used: .*{words}"):
            templates_in(folder, tmp_path, template)
    if case in ("loop at a picture", "recursion"):
        processor = with_template(tiny_models.build("llava")[1], template)
        for _ in range(2):
            with pytest.raises(UserError, match=rf"The chat template of the LlavaProcessor cannot be used: .*{words}"):
                render(Example("Who?", "Ada"), processor)


def test_a_template_is_tried_once(monkeypatch):
    calls = []
    monkeypatch.setattr(bounded, "trouble", lambda work: calls.append(work) or "")
    processor = with_template(tiny_models.build("llava")[1], "{{ 'one of a kind' }}")
    for _ in range(3):
        check_bounds(processor, "x")
    assert len(calls) == 1


@pytest.mark.thorough
@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 / 0 }}",
        "{{ messages.nothing.at.all }}",
        "{{ messages | nothing }}",
        "{% for",
        "{{ 'a'.join(1) }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(messages[-1]['content'] | length) }}",
        "{{ messages[messages[0]['content']] }}",
    ],
)
def test_whatever_goes_wrong_in_a_template_is_a_user_error(folder, template):
    processor = with_text(load_processor(find_checkpoint(str(folder))), template)
    with pytest.raises(UserError, match=r"x:3: |cannot be used"):
        render(Example("Who? " * 900, "Ada", (), "x:3"), processor)


def test_what_a_template_refuses_is_logged(folder, monkeypatch, caplog):
    monkeypatch.setattr(bounded, "FORKS", False)  # the copy of a process logs for itself
    caplog.set_level(logging.DEBUG, "kvw.data.templates")
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEXT
    check_bounds(with_text(load_processor(find_checkpoint(str(folder))), strict), "x")
    told = [record.getMessage() for record in caplog.records]
    assert told[0] == "A chat template cannot show a conversation of system, user: no system role"
    assert len(told) == 3


def test_options_are_values_of_the_templates_variables():
    values = [("a", True), ("b", None), ("c", 'é"\n🦊{{'), ("d", [1, {"e": False}]), ("f", -1.5)]
    template = "{{ [a is true, b is none, c, d[1].e is false, f] }}"
    tokenizer = text_models.build("qwen3")[1]
    shown = tokenizer.apply_chat_template(
        [{"role": "user", "content": ""}], chat_template=with_options(template, values), tokenize=False
    )
    assert shown == str([True, True, 'é"\n🦊{{', True, -1.5])


@pytest.mark.parametrize("name", ["thinkin", "messages", "a b", "", "x{{", "content", "role", "m", "system", "if"])
def test_options_that_the_template_does_not_have(name):
    template = TEXT + "{% if false %}a system{% endif %}{{ thinking }}{# thinkin #}"
    with pytest.raises(UserError, match=r"chat template has no option[\s\S]*its variables: thinking"):
        with_options(template, [(name, True)])
    with pytest.raises(UserError, match=r"no option 'thinking'\.\s+found: no chat template"):
        with_options(None, [("thinking", True)])


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("llama3", {"date_string", "bos_token"}),
        ("smollm3", {"enable_thinking"}),
        ("deepseek_v3_1", {"thinking", "bos_token", "eos_token"}),
        ("gpt_oss", {"reasoning_effort"}),
        ("qwen3", {"enable_thinking"}),
    ],
)
def test_variables_that_a_template_may_set_itself_are_options(file, options):
    template = (PUBLISHED / f"{file}.jinja").read_text("utf-8")
    for name in options:
        assert with_options(template, [(name, "x")]).startswith("{%- set " + name)
    with pytest.raises(UserError, match="its variables: .*" + ".*, ".join(sorted(options))):
        with_options(template, [("nothing", 1)])


def test_a_template_with_marks_for_training_has_options_too():
    template = (
        "{% for m in messages %}{% generation %}{{ m.content }}{{ style }}{% endgeneration %}{% break %}{% endfor %}"
    )
    assert with_options(template, [("style", 1)]).endswith(template)
    with pytest.raises(UserError, match="not valid"):
        with_options("{% for", [("style", 1)])


def test_half_a_surrogate_pair_in_a_template_is_a_user_error(folder):
    processor = with_text(load_processor(find_checkpoint(str(folder))), TEXT + "{{ '\\ud800' }}")
    with pytest.raises(UserError, match=r"x:3: [\s\S]*UnicodeEncodeError"):
        render(Example("Who?", "Ada", (), "x:3"), processor)
