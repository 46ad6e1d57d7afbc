"""Questions that the model answers itself."""

from __future__ import annotations

import stat
from dataclasses import replace

import pytest
from tests.tiny_models import noise_png

from kvw.cache import cache_directory
from kvw.data import prepare
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.loaded import Loaded
from kvw.models.checkpoint import find_checkpoint
from kvw.retain import answering
from kvw.retain.answering import self_answered, usable
from kvw.retain.question import Question

QUESTIONS = [
    Question("Who is this?", (noise_png(1),), "p:1", {"subject": "one"}),
    Question("What is a bridge?", identifier="e:1"),
    Question("Which is larger, a cat or a dog?", identifier="e:2"),
    Question("Say something.", identifier="e:3"),
]


@pytest.fixture(scope="module")
def loaded(saved):
    return Loaded.load(find_checkpoint(str(saved["llava"])), "cpu")


@pytest.fixture
def calls(loaded, monkeypatch):
    """How many questions each call of ``generate`` was given."""
    made = []
    generate = loaded.model.generate

    def counted(**inputs):
        made.append(len(inputs["input_ids"]))
        return generate(**inputs)

    monkeypatch.setattr(loaded.model, "generate", counted)
    return made


@pytest.mark.thorough
def test_answers_are_the_models_own_and_can_be_given_back(loaded):
    found = self_answered(loaded, QUESTIONS, max_new_tokens=6)
    assert found
    prepared = prepare([question.answered("x") for question in QUESTIONS], loaded.processor)
    answers = generate_answers(loaded.model, loaded.processor, prepared, max_new_tokens=6)
    expected = {one.identifier: answer for one, answer in zip(QUESTIONS, answers, strict=True)}
    for example in found:
        question = next(one for one in QUESTIONS if one.identifier == example.identifier)
        assert (example.question, example.images, example.metadata) == (
            question.question,
            question.images,
            question.metadata,
        )
        assert example.answer == expected[example.identifier].rstrip("\ufffd").strip()
    assert len(prepare(found, loaded.processor)) == len(found)


def test_the_second_time_nothing_is_generated(loaded, calls):
    first = self_answered(loaded, QUESTIONS, max_new_tokens=4)
    assert sum(calls) == len(QUESTIONS)
    assert self_answered(loaded, QUESTIONS, max_new_tokens=4) == first
    assert sum(calls) == len(QUESTIONS)
    self_answered(loaded, QUESTIONS, max_new_tokens=5)
    self_answered(loaded, QUESTIONS[:2], max_new_tokens=4)
    assert sum(calls) == 2 * len(QUESTIONS) + 2


def test_what_is_kept_is_for_its_owner_alone(loaded):
    self_answered(loaded, QUESTIONS[1:], max_new_tokens=4)
    (path,) = (cache_directory() / "answers").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_after_an_interruption_only_the_rest_is_generated(loaded, calls, monkeypatch):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        self_answered(loaded, QUESTIONS, max_new_tokens=4, progress=stop)
    before = sum(calls)
    self_answered(loaded, QUESTIONS, max_new_tokens=4)
    assert 0 < before < sum(calls) == len(QUESTIONS)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("A road over water.", "A road over water."),
        ("  A road over ", "A road over"),
        ("A road \ufffd\ufffd", "A road"),
        ("", None),
        (" \n", None),
        ("\ufffd", None),
        ("a road a road a road a road a road", None),
        ("An <image> of a road.", None),
    ],
)
def test_what_is_no_answer_is_dropped(loaded, monkeypatch, answer, kept):
    monkeypatch.setattr(answering, "generate_answers", lambda *_, **__: [answer, "Good."])
    found = self_answered(loaded, QUESTIONS[1:3])
    assert [one.answer for one in found] == ([kept] if kept else []) + ["Good."]


def test_what_the_model_cannot_be_asked_is_dropped(loaded, monkeypatch):
    long = Question("What is " + "very " * 400 + "long?", identifier="e:9")
    monkeypatch.setattr(loaded.model.config.text_config, "max_position_embeddings", 200)
    assert {one.identifier for one in self_answered(loaded, [*QUESTIONS[1:], long], max_new_tokens=4)} == {
        one.identifier for one in self_answered(loaded, QUESTIONS[1:], max_new_tokens=4)
    }
    assert usable([QUESTIONS[1].answered("A road."), long.answered("Yes.")], loaded) == [
        QUESTIONS[1].answered("A road.")
    ]
    assert usable([QUESTIONS[1].answered("A road.")], loaded, new_tokens=200) == []


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("It is in Peru. It has a", "It is in Peru."),
        ("It is old! It has (so they say.) Yes", "It is old! It has (so they say.)"),
        ("It is in Peru. It has one.", "It is in Peru. It has one."),
        ("It is in St. Lucia, 2. in", "It is in St. Lucia, 2. in"),
        ("It is three.14 and more of", "It is three.14 and more of"),
        ("\u5b83\u5728\u79d8\u9c81\u3002\u5b83", "\u5b83\u5728\u79d8\u9c81\u3002"),
    ],
)
def test_what_was_cut_off_ends_with_its_last_sentence(loaded, monkeypatch, answer, kept):
    monkeypatch.setattr(answering, "generate_answers", lambda *_, **__: [answer])
    tokens = len(loaded.processor.tokenizer(answer, add_special_tokens=False)["input_ids"])
    for longest, expected in ((tokens, kept), (tokens + 1, kept), (tokens + 2, answer)):
        assert [one.answer for one in self_answered(loaded, QUESTIONS[1:2], max_new_tokens=longest)] == [expected]


def test_the_model_goes_on_after_an_opening(loaded):
    question = Question("What is a bridge?", identifier="e:1", opening="A bridge is")
    (found,) = self_answered(loaded, [question], max_new_tokens=5)
    (item,) = loaded.prepare([question.answered("A bridge is")], 5)
    (generated,) = generate_answers(loaded.model, loaded.processor, [replace(item, prompt=item.full)], max_new_tokens=5)
    plain = self_answered(loaded, [replace(question, opening="")], max_new_tokens=5)
    assert found.answer.startswith("A bridge is")
    assert found.answer.removeprefix("A bridge is").strip() == generated.rstrip("\ufffd").strip()
    assert found.answer != plain[0].answer
    assert found.question == question.question


@pytest.mark.parametrize(
    ("opening", "generated", "answer"),
    [
        ("Rome is in", "Italy, of course. It is old.", "Rome is in Italy, of course."),
        ("Rome is in", ", as you know, Italy", "Rome is in, as you know, Italy"),
        ("Rome is in", "Italy\nAnd so on", "Rome is in Italy"),
        ("Rome", "'s in Italy", "Rome's in Italy"),
        ("Rome is in", '"Italy".', 'Rome is in "Italy".'),
        ('"Rome', '" is a film', '"Rome" is a film'),
        ("Rome", "(Italy)", "Rome (Italy)"),
        ("Rome cost", "\u20ac5", "Rome cost \u20ac5"),
        ("Rome\u5728", "\u610f\u5927\u5229", "Rome\u5728\u610f\u5927\u5229"),
        ("Rome\u5728", "Italy", "Rome\u5728Italy"),
        ("\u0631\u0648\u0645\u0627 \u0641\u064a", "\u0625\u064a\u0637\u0627\u0644\u064a\u0627",
         "\u0631\u0648\u0645\u0627 \u0641\u064a \u0625\u064a\u0637\u0627\u0644\u064a\u0627"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("question", ["Where is Rome?", "Rome?"])
def test_after_an_opening_comes_the_rest_of_its_sentence(loaded, monkeypatch, question, opening, generated, answer):
    monkeypatch.setattr(answering, "generate_answers", lambda *_, **__: [generated])
    (found,) = self_answered(loaded, [Question(question, opening=opening)])
    assert found.answer == answer


@pytest.mark.parametrize("generated", ["", " \n", "\ufffd"])
def test_an_opening_with_nothing_after_it_is_no_answer(loaded, monkeypatch, generated):
    monkeypatch.setattr(answering, "generate_answers", lambda *_, **__: [generated, "Good."])
    found = self_answered(loaded, [Question("Where is Rome?", opening="Rome is in"), QUESTIONS[1]])
    assert [one.answer for one in found] == ["Good."]


def test_progress_is_told(loaded):
    told = []
    self_answered(loaded, QUESTIONS, max_new_tokens=2, progress=lambda *numbers: told.append(numbers))
    assert told[-1] == (4, 4)
