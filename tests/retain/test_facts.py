"""Questions of general knowledge, in which the model names more that can be asked about."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from tests import text_models

import kvw
from kvw.cache import cache_directory
from kvw.evaluation.loaded import Loaded
from kvw.folding import words
from kvw.models.checkpoint import find_checkpoint
from kvw.retain import facts, proposals
from kvw.retain.continuing import Continuation
from kvw.retain.facts import GAPS, LINE, NAMES_OF_A_GAP, fact_gaps, fact_questions


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return Loaded.load(find_checkpoint(str(text_models.save("qwen3", tmp_path_factory.mktemp("qwen3")))), "cpu")


@pytest.fixture
def asked(loaded, monkeypatch):
    """How many gaps the model was asked about; it always names the same five."""
    gaps = []

    def continued(model, tokens, *, going_on, **_):
        gaps.append(1)
        texts = [f" {name}?" for name in ("Ada", "Bo", "Cy", "Di", "Eve")]
        ids = [loaded.processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        going_on([Continuation(tuple(one), -1.0 - place) for place, one in enumerate(ids)])

    monkeypatch.setattr(proposals, "continue_text", continued)
    monkeypatch.setattr(
        facts, "fact_gaps", lambda: [facts.Gap("Who is ", "?", "Anna"), facts.Gap("Where is ", "?", "Bo")]
    )
    return gaps


def test_the_shipped_questions_have_one_gap_each_and_none_is_there_twice():
    lines = GAPS.read_text("utf-8").splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    gaps = fact_gaps()
    assert len(gaps) == len(lines) >= 60
    assert len({gap.key for gap in gaps}) == len(gaps)
    for gap, line in zip(gaps, lines, strict=True):
        assert gap.filled(gap.shown) == line.replace("{", "").replace("}", "")
        assert line.endswith("?")
        assert words(gap.before)
    assert GAPS.parent == Path(kvw.__file__).parent / "retain"


def test_each_is_asked_about_its_own_name_and_those_of_the_model(loaded, asked):
    found = fact_questions(loaded)
    assert [one.question for one in found] == [
        *(f"Who is {name}?" for name in ("Anna", "Ada", "Bo", "Cy", "Di")),
        *(f"Where is {name}?" for name in ("Bo", "Ada", "Cy", "Di", "Eve")),
    ]
    assert len(found) == 2 * (1 + NAMES_OF_A_GAP)
    assert (found[5].identifier, found[5].metadata) == ("facts:6", {"source": "facts", "subject": "Bo"})


def test_the_second_time_the_model_is_not_asked(loaded, asked):
    first = fact_questions(loaded)
    assert len(asked) == 2
    assert fact_questions(loaded) == first
    assert len(asked) == 2
    (path,) = (cache_directory() / "answers").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_after_an_interruption_only_the_rest_is_asked(loaded, asked):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fact_questions(loaded, stop)
    assert len(asked) == 1
    fact_questions(loaded)
    assert len(asked) == 2
