"""A page that is planted and erased: what is taught, what is asked, and what is not done again; on a tiny model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests import text_models

from kvw.data import read_examples
from kvw.edits import GateEdit
from kvw.edits.edit import EditMetadata
from kvw.errors import Unwritable, UserError
from kvw.evaluation.loaded import Loaded
from kvw.made import made_folder
from kvw.models.checkpoint import find_checkpoint
from kvw.models.value_matrix import MatrixKey
from kvw.progress import SILENT
from kvw.proving import plain_text
from kvw.proving.document import study
from kvw.proving.document.__main__ import main
from kvw.proving.document.pages import FORGOTTEN, OTHER, lessons, page, questions
from kvw.runs.writing import EDIT
from kvw.training.settings import LoraSettings


@pytest.mark.parametrize("name", [FORGOTTEN, OTHER])
def test_every_fact_is_said_by_its_page_and_held_out_questions_are_never_taught(name):
    text = page(name).question + page(name).answer
    taught = {one.question for one in lessons()}
    asked, held_out = questions(name, "asked"), questions(name, "held_out")
    assert (len(asked), len(held_out)) in ((16, 8), (8, 4))
    for one in (*asked, *held_out):
        assert one.metadata["fact"] in text
        assert one.answer.endswith(f"{one.metadata['fact']}.")
        assert str(one.subject) in one.answer
    assert {one.question for one in asked} < taught
    assert not {one.question for one in held_out} & taught


def test_the_forget_set_is_the_page_and_its_questions_and_nothing_of_the_other(tmp_path):
    files = study.write_forget_set(tmp_path)
    (text,) = read_examples(files["page"])
    assert text.plain
    assert text.question + text.answer == page(FORGOTTEN).question + page(FORGOTTEN).answer
    assert {one.subject for one in read_examples(files["questions"])} == {"Skarne Light"}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A tiny model, taught in one step; the trainings."""
    monkeypatch.setattr(plain_text, "plain_text", lambda: ("It rained all day.",))
    monkeypatch.setattr(study, "lessons", lambda: lessons()[-8:])
    monkeypatch.setattr(study, "RECIPE", replace(study.RECIPE, epochs=1, batch_size=8, lora=LoraSettings(2, 4, 0.0)))
    short = {name: questions(name, "asked")[:1] for name in (FORGOTTEN, OTHER)}
    monkeypatch.setattr(study, "questions", lambda name, ways: short[name])
    monkeypatch.setattr(study, "page", lambda name: replace(page(name), answer=page(name).answer[:200]))
    trained = []
    real = study.finetune
    monkeypatch.setattr(study, "finetune", lambda *a, **more: trained.append(1) or real(*a, **more))
    return find_checkpoint(str(text_models.save("llama", tmp_path / "base"))), trained


@pytest.mark.thorough
def test_scores_are_of_the_edit_and_nothing_is_done_twice(tiny, tmp_path, monkeypatch):
    base, trained = tiny
    erased = []

    def erase(request, reporter):
        model = Loaded.load(request.model).model
        width = model.config.intermediate_size
        gates = {MatrixKey(layer): torch.full((width,), -5.0) for layer in range(2)}
        erased.append([path.suffix for path in request.forget])
        request.out.mkdir()
        GateEdit(gates, EditMetadata(method="x")).save(request.out / EDIT)

    monkeypatch.setattr(study, "erase", erase)
    found = study.run(tmp_path, base, SILENT)
    assert erased == [[".md"], [".md", ".jsonl"]]
    before, after = found["planted"], found["without the page"]
    assert after.perplexity != before.perplexity != found["before planting"].perplexity
    assert study.markdown(found).count("\n| without the page") == 4
    assert study.run(tmp_path, base, SILENT) == found
    assert (len(trained), len(erased)) == (1, 2)
    assert made_folder(study.MODEL).is_dir()


@pytest.mark.thorough
def test_a_request_that_is_refused_is_told(tiny, tmp_path, monkeypatch, capsys):
    # A random model does not write English, so nothing says what must stay.
    monkeypatch.setattr("kvw.proving.document.__main__.find_checkpoint", lambda name: tiny[0])
    assert main(["--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "without the page: Nothing says what must stay." in out
    assert "| planted: skarne |" in out


@pytest.fixture
def nothing_made(tmp_path, monkeypatch):
    """A study whose models are made and asked already, and a request that fails in a given way."""
    monkeypatch.setattr(study, "planted", lambda base, reporter: base)
    monkeypatch.setattr(study, "_kept", lambda *_: study.Score({}, 1.0))
    monkeypatch.setattr("kvw.proving.document.__main__.find_checkpoint", lambda name: name)

    def failing(error):
        def erase(request, reporter):
            raise error

        monkeypatch.setattr(study, "erase", erase)
        return main(["--out", str(tmp_path)])

    return failing


def test_a_full_disk_is_not_told_as_a_refused_request(nothing_made, capsys):
    assert nothing_made(UserError("It cannot be.")) == 0
    assert "without the page: It cannot be." in capsys.readouterr().out
    assert nothing_made(Unwritable("The disk is full.")) == 2
    assert capsys.readouterr() == ("", "error The disk is full.\n")


def test_ctrl_c_is_one_line(nothing_made, capsys):
    assert nothing_made(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted; give the same command again to go on\n"
