"""The pages: README's Python runs as pasted, what it shows is measured, commands and links exist."""

from __future__ import annotations

import re
import shutil
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial
from io import StringIO
from pathlib import Path

import pytest
from tests import tiny_models
from tests.batches import text_batch
from tests.program import run
from tests.text_models import build

import kvw
from kvw.cache import cache_directory

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


SMOLLM2 = "examples/smollm2"
GROUPS = ("bench", "data", "edit", "evidence", "inspect", "keys", "register", "secrets", "sweep")


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


def commands(text: str) -> list[list[str]]:
    """The words of every command line of the program behind ``kvw``, in blocks and in the text."""
    lines = "".join(blocks(text, "")).replace("\\\n", " ").splitlines()
    quoted = re.findall(r"`(kvw [^`]*)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    found = [
        re.match(r"(?:\.venv/bin/)?kvw ([a-z].*)", " ".join(line.partition("#")[0].split())) for line in lines + quoted
    ]
    return [match[1].split() for match in found if match]


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_readme_is_short() -> None:
    assert len(README.split()) <= 1200


def test_what_readme_shows_was_measured() -> None:
    """The output in README is the beginning of that on the page with the measurements, for the same questions."""
    shown = [block.rstrip() for block in blocks(README, "") if "held-out" in block]
    page = (ROOT / "docs" / "pretrained.md").read_text()
    assert shown
    for line in "\n".join(shown).splitlines():
        assert line in page.splitlines()
    assert (ROOT / "examples" / "smollm2" / "play.jsonl").read_text().strip() in page


@pytest.mark.thorough
def test_python_of_readme_runs_as_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = build("llama")
    model.generation_config.eos_token_id = list(range(len(tokenizer)))  # so that answers are short
    for part in (model, tokenizer):
        part.save_pretrained(cache_directory() / "models" / "smollm2-135m")
    copied = shutil.copytree(ROOT / "examples", tmp_path / "examples") / "smollm2" / "retain.jsonl"
    copied.write_text("".join(copied.read_text().splitlines(keepends=True)[:24]))  # six subjects: quick
    monkeypatch.chdir(tmp_path)
    [pasted] = blocks(README, "python")
    exec(compile(pasted, "README.md", "exec"), {})
    assert {path.name for path in (tmp_path / "run-python").iterdir()} > {"edit.safetensors", "model", "run.json"}


@pytest.mark.slow
def test_python_of_the_python_page_runs_as_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = build("llama")
    model.generation_config.eos_token_id = list(range(len(tokenizer)))  # so that answers are short
    for part in (model, tokenizer):
        part.save_pretrained(cache_directory() / "models" / "smollm2-135m")
    tiny_models.save("llava", tmp_path / "llava-hf" / "llava-1.5-7b-hf")
    for name in ("forget", "new_photos"):
        shutil.copy(ROOT / SMOLLM2 / "forget.jsonl", tmp_path / f"{name}.jsonl")
    (tmp_path / "ann.png").write_bytes(tiny_models.noise_png(1))
    monkeypatch.chdir(tmp_path)
    pasted = blocks((ROOT / "docs" / "python.md").read_text(), "python")
    loaders = [[text_batch(4, 9, 3, seed)] for seed in (1, 2)]
    names: dict[str, object] = {"forget_loader": loaders[0], "retain_loader": loaders[1]}
    (tmp_path / "retain.jsonl").write_text("".join((ROOT / SMOLLM2 / "retain.jsonl").open().readlines()[:24]))
    # Random weights write no English, so they have no retain sources, and lose by chance what they never knew.
    erase = partial(kvw.erase, retain="retain.jsonl", write_damaged=True)
    monkeypatch.setattr(kvw, "erase", erase, raising=False)
    for block in pasted:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert len(pasted) == 5
    assert (tmp_path / "model" / "config.json").is_file()
    assert (tmp_path / "edit.safetensors").is_file()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@cache
def help_of(verb: tuple[str, ...]) -> str:
    """What the program says of a verb; empty if there is none."""
    with redirect_stdout(StringIO()) as told, redirect_stderr(StringIO()):
        code = run(*verb, "--help")
    return told.getvalue() if code == 0 else ""


@pytest.mark.thorough
@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page.read_text()):
        depth = 2 if words[0] in GROUPS and len(words) > 1 and words[1].isalpha() else 1
        told = help_of(tuple(words[:depth]))
        assert told, words
        given = {word.rstrip(",:;)").partition("=")[0] for word in words if word.startswith("--")}
        assert given <= set(re.findall(r"--[a-z0-9-]+", told)), words


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem in ("README", "strength", "retain", "edits")], ids=named
)
def test_options_that_the_text_names_exist(page: Path) -> None:
    verbs = [
        ("erase",),
        ("apply",),
        ("evaluate",),
        ("sweep", "layers"),
        *(("edit", name) for name in ("anchor", "export", "scale")),
    ]
    known = {"--help", *re.findall(r"--[a-z0-9-]+", "".join(help_of(verb) for verb in verbs))}
    assert set(re.findall(r"`(--[a-z0-9-]+)", page.read_text())) <= known
