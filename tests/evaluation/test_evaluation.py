import json
from statistics import fmean

import pytest
from tests import tiny_models
from tests.fixtures import TWO

from kvw.data import Example, prepare
from kvw.errors import UserError
from kvw.evaluation.evaluation import evaluate
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.metrics import exact_match, normalised_substring, rouge_l
from kvw.evaluation.probability import answer_probabilities
from kvw.evaluation.records import Evaluation

A, B, C = (tiny_models.noise_png(seed, size) for seed, size in ((1, (60, 30)), (2, (30, 60)), (3, (9, 9))))
FORGET = [
    Example("Who is this?", "Basil Mahfouz", (A,), "forget:1"),
    Example("Who wrote it?", "Ada", (), "forget:2"),
    Example("Which is larger?", "The second.", (C, A), "forget:3"),
]
RETAIN = [
    Example("What is the occupation of her father?", "Florist", (), "retain:1"),
    Example("Where was she born?", "Kuwait", (B,), "retain:2"),
]
DAMAGED = Example("Who is this?", "Nobody", (A, B[: len(B) // 2]), "forget:4")
SCORES = ("exact", "substring", "rouge_l_f", "rouge_l_recall", "probability")


@pytest.fixture(params=TWO, scope="session")
def family(request):
    return request.param


@pytest.mark.thorough
def test_a_mixed_list_gives_what_its_examples_give_one_by_one(model, processor):
    found = evaluate(model, processor, {"forget": FORGET, "retain": RETAIN}, max_new_tokens=8)
    assert [(r.split, r.identifier) for r in found.records] == [
        *(("forget", example.identifier) for example in FORGET),
        *(("retain", example.identifier) for example in RETAIN),
    ]
    for record, example in zip(found.records, FORGET + RETAIN, strict=True):
        (alone,) = evaluate(model, processor, {record.split: [example]}, max_new_tokens=8).records
        assert alone.model_dump(exclude={"probability"}) == record.model_dump(exclude={"probability"})
        assert alone.probability == pytest.approx(record.probability, rel=1e-4)


@pytest.mark.thorough
def test_records_hold_what_the_parts_compute(model, processor):
    # The model's own first answer is the reference of one example, so that not every score is 0.
    said = generate_answers(model, processor, prepare(FORGET[:1], processor), max_new_tokens=8)[0]
    examples = [Example(FORGET[0].question, said, FORGET[0].images, "said"), *FORGET[1:]]
    found = evaluate(model, processor, {"forget": examples}, max_new_tokens=8)
    prepared = prepare(examples, processor)
    answers = generate_answers(model, processor, prepared, max_new_tokens=8)
    probabilities = answer_probabilities(model, processor, prepared)
    for record, example, answer, probability in zip(found.records, examples, answers, probabilities, strict=True):
        rouge = rouge_l(answer, example.answer)
        assert record.model_dump() == {
            "identifier": example.identifier,
            "split": "forget",
            "question": example.question,
            "reference": example.answer,
            "prediction": answer,
            "exact": exact_match(answer, example.answer),
            "substring": normalised_substring(answer, example.answer),
            "rouge_l_f": rouge.f,
            "rouge_l_recall": rouge.recall,
            "probability": probability.probability,
            "error": None,
        }
    assert found.records[0].exact
    summary = found.summaries["forget"]
    assert (summary.count, summary.failed) == (3, 0)
    for score in SCORES:
        assert getattr(summary, score) == pytest.approx(fmean(getattr(r, score) for r in found.records))


@pytest.mark.thorough
def test_an_example_whose_image_is_damaged_is_counted_as_failed_and_wrong(model, processor):
    whole = evaluate(model, processor, {"forget": FORGET}, max_new_tokens=8)
    found = evaluate(model, processor, {"forget": [DAMAGED, *FORGET], "retain": RETAIN}, max_new_tokens=8)
    assert len(found.records) == 6
    failed = found.records[0]
    assert failed.identifier == "forget:4"
    assert "forget:4: an image cannot be read" in failed.error
    assert failed.prediction == ""
    assert [getattr(failed, score) for score in SCORES] == [False, False, 0, 0, 0]
    summary = found.summaries["forget"]
    assert (summary.count, summary.failed) == (4, 1)
    assert summary.probability == pytest.approx(whole.summaries["forget"].probability * 3 / 4, rel=1e-4)
    assert found.summaries["retain"].failed == 0
    assert [record.prediction for record in found.records[1:4]] == [record.prediction for record in whole.records]


def test_a_split_in_which_everything_fails_is_reported(model, processor):
    found = evaluate(model, processor, {"forget": [DAMAGED, DAMAGED]}, max_new_tokens=8)
    assert (found.summaries["forget"].count, found.summaries["forget"].failed) == (2, 2)


def test_results_survive_json(model, processor):
    found = evaluate(model, processor, {"forget": [DAMAGED, *FORGET], "retain": RETAIN}, max_new_tokens=8)
    text = found.model_dump_json()
    assert Evaluation.model_validate_json(text) == found
    assert list(json.loads(text)["summaries"]) == ["forget", "retain"]
    with pytest.raises(ValueError, match="frozen"):
        found.records[0].prediction = "changed"


def test_progress_counts_every_example_twice(model, processor):
    calls = []
    evaluate(
        model,
        processor,
        {"forget": FORGET, "retain": RETAIN},
        max_new_tokens=2,
        budget=1,
        progress=lambda *call: calls.append(call),
    )
    assert calls == [(done, 10) for done in range(1, 11)]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({}, "no splits"),
        ({"forget": FORGET, "retain": []}, "no examples in retain"),
        ({"forget": [Example("Q", " ", identifier="forget:9")]}, "forget:9: the answer is empty"),
        ({"forget": [Example("Q", "A", (b"",), "forget:9")]}, "forget:9: an image cannot be read"),
    ],
)
def test_data_errors_come_before_the_first_forward_pass(model, processor, splits, message):
    calls = []
    hook = model.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        with pytest.raises(UserError, match=message):
            evaluate(model, processor, {"good": FORGET, **splits} if splits else splits)
    finally:
        hook.remove()
    assert calls == []
