import pytest

from kvw.data import answer_batch, prepare
from kvw.data.benchmarks import Prompt, Protocol, examples


@pytest.fixture(scope="module")
def data(mllmu):
    return mllmu


@pytest.mark.parametrize("shots", [0, 2])
def test_a_model_can_be_asked_with_and_without_exemplars(data, llava_processor, shots):
    asked = examples(data, "forget", "cloze_image", Protocol(shots=shots))
    prepared = prepare(asked, llava_processor)
    assert {item.image_count for item in prepared} == {shots + 1}
    batch = answer_batch(prepared, llava_processor)
    assert batch["pixel_values"].shape[0] == len(asked) * (shots + 1)


def test_what_is_planted_can_be_asked_as_it_is(data, llava_processor):
    prepared = prepare([item.example() for item in data.planted], llava_processor)
    assert [item.example.answer for item in prepared] == [item.answer for item in data.planted]


def test_braces_in_a_question_stay_what_they_are():
    prompt = Prompt("p", "{question}|{options}", "here", exemplar="{question}={answer};")
    assert prompt.ask("{options} {answer} {x}", ["a"]) == "{options} {answer} {x}|A: a"
    assert prompt.show("{answer}", [], "{question}") == "{answer}={question};"
