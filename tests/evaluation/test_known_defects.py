"""Defects found in the code of published benchmarks, one test each: here they do not exist.

Each docstring says where the defect was and what it did. Those about loading data and about training have their tests
elsewhere.
"""

from __future__ import annotations

import math
import threading
from statistics import fmean

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from tests import tiny_models
from tests.golden.tofu_logs import SETS, log

from kvw.data import Example, prepare
from kvw.errors import UserError
from kvw.evaluation.evaluation import evaluate
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.metrics import (
    Outcome,
    OutcomeCounts,
    bleu,
    clear_forget_quality,
    clear_truth_ratios,
    cloze_match,
    extraction_strength,
    first_character,
    first_letter,
    forget_quality,
    forget_rouge_both,
    jensen_shannon,
    letter_outcome,
    likelihood_outcome,
    min_k,
    normalised_probability,
    open_outcome,
    parse_letter,
    retain_rouge_both,
    retain_truth_ratio,
    rouge_l,
    truth_ratio,
)

A, B = (tiny_models.noise_png(seed, (40, 30)) for seed in (1, 2))
IMAGE_QUESTION = Example("Who is this?", "Basil", (A,), "image:1")
TEXT_QUESTIONS = [
    Example("Where was she born?", "Paris", (), "text:1"),
    Example("What does her father do?", "Florist", (), "text:2"),
]


def test_rouge_recall_is_not_reported_as_f():
    """TOFU, CLEAR and FIUBench mean the recall, MLLMU-Bench the F measure, SafeEraser the precision by "ROUGE-L"."""
    found = rouge_l("the cat sat on the mat and slept", "the cat sat")
    assert (found.recall, found.precision, found.f) == (1, 3 / 8, pytest.approx(6 / 11))
    with pytest.raises(TypeError):
        float(found)


@pytest.mark.thorough
def test_rouge_is_stemmed():
    """Without the stemmer 19 of the 817 published TOFU items change."""
    plain = RougeScorer(["rougeL"])
    changed = sum(
        plain.score(target=reference, prediction=generated)["rougeL"].recall != recall
        for part in SETS
        for (_, generated, reference), recall in zip(
            log("full", part)["generated_text"], log("full", part)["rougeL_recall"], strict=True
        )
    )
    assert changed == 19
    assert rouge_l("police killed the gunman", "police kill the gunman").f == 1


def test_truth_ratios_use_the_wrong_answers_of_their_own_item():
    """CLEAR takes one mean of the perturbed losses of the whole set."""
    paraphrased, perturbed = [1.0, 1.0], [[1.0, 1.0], [3.0, 3.0]]
    assert [truth_ratio(*item, "right/wrong") for item in zip(paraphrased, perturbed, strict=True)] == [1, math.exp(2)]
    assert clear_truth_ratios(paraphrased, perturbed) == [math.exp(1), math.exp(1)]


def test_the_orientation_of_a_truth_ratio_is_named():
    """CLEAR stores the inverse of TOFU's ratio; read as the other it turns good into bad without an error."""
    ratio = truth_ratio(1.0, [3.0])
    assert ratio < 1 < truth_ratio(1.0, [3.0], "right/wrong")
    assert retain_truth_ratio(ratio) == pytest.approx(retain_truth_ratio(1 / ratio, "right/wrong"))
    assert retain_truth_ratio(1 / ratio) == 0


def test_js_is_a_distance_of_distributions():
    """CLEAR hands raw paired lists to the Jensen-Shannon function: which item has which ratio decides."""
    ratios = [0.1, 0.5, 2.0, 8.0]
    assert jensen_shannon(ratios, ratios[::-1]) == 0
    assert clear_forget_quality(ratios, ratios[::-1]) < 0.5
    # In its division by the sum the perturbed answers cancel out: they do not matter at all.
    gold = clear_truth_ratios([1.0, 2.0], [[1.0], [1.0]])
    near, far = (clear_truth_ratios([2.0, 1.0], [[loss], [loss]]) for loss in (1.0, 9.0))
    assert clear_forget_quality(near, gold) == pytest.approx(clear_forget_quality(far, gold))
    assert forget_quality(near, gold) != forget_quality(far, gold)


def test_forget_quality_without_the_gold_model_says_how_to_get_it():
    """open-unlearning: forget quality goes missing without a word when there is no retain model."""
    with pytest.raises(UserError, match=r"there is none(.|\n)*only the retain set"):
        forget_quality([1.0], [])


def test_normalised_probabilities_do_not_underflow():
    """Probabilities of a model that collapsed are 0 in floats, and 0 / 0 is no number."""
    assert math.exp(-800) == 0
    assert normalised_probability(800.0, [800.0]) == 0.5


def test_rouge_of_two_modalities_is_defined_where_both_are_zero():
    """UMU-Bench's formula divides by the sum."""
    assert forget_rouge_both([0.0], [0.0]) == retain_rouge_both([0.0], [0.0]) == 0


def test_extraction_strength_is_zero_when_the_last_token_is_wrong():
    """open-unlearning's loop ends before the empty rest, so that nothing extracted gives 1 / length."""
    assert extraction_strength([True, True, False]) == 0
    assert extraction_strength([False]) == 0


def test_min_k_of_a_short_answer_is_a_number():
    """20 % of four tokens is no token, and the mean of nothing is not a number."""
    assert min_k([-1.0, -2.0, -3.0, -4.0]) == -4


def test_an_article_is_not_taken_for_option_a():
    """MLLMU-Bench, MMUnlearner and MLLMEraser score the first character or letter, whatever it begins."""
    options = {"A": "Paris", "B": "London"}
    for reply in ("A man in a hat", "a person"):
        assert first_character(reply, options) == first_letter(reply, options) == "A"
        assert parse_letter(reply, options) is None
    assert parse_letter("The answer is B", options) == "B"
    assert first_letter("The answer is B", options) is None


def test_an_empty_reply_names_no_option():
    """The empty text is a substring of every string of letters."""
    assert first_character("", "ABCD") is None
    assert first_letter("?!", "ABCD") is None


def test_equally_likely_options_are_not_scored_as_correct():
    """An argmax over equal scores takes the first option, which is right by its place."""
    assert likelihood_outcome({"A": -1.0, "B": -1.0}, "A") is Outcome.INVALID


def test_an_empty_truth_does_not_match_everything():
    """The cloze score is a plain substring test, which an empty truth always passes."""
    assert not cloze_match("anything", "")


def test_refusals_and_nonsense_do_not_pass_as_forgetting():
    """Accuracy alone cannot tell a model that forgot from one that refuses everything or talks nonsense."""
    options = {"A": "Paris", "B": "London"}
    wrong, refused, broken = (
        OutcomeCounts.of([letter_outcome(reply, options, "A")] * 4) for reply in ("B", "I cannot say.", "@@@@")
    )
    assert wrong.access_rate == refused.access_rate == broken.access_rate == 0
    assert (wrong.incorrect, refused.refusal, broken.invalid) == (4, 4, 4)
    assert (wrong.conditional_accuracy, refused.conditional_accuracy) == (0, None)


def test_a_hedge_that_gives_the_answer_is_not_a_refusal():
    """Refusal matched first would hide that the knowledge is still there."""
    assert open_outcome("I'm not sure, but I think it is Paris.", correct=True) is Outcome.CORRECT


def test_failed_items_are_not_dropped_from_the_average(llava, llava_processor):
    """OFFSIDE leaves failed items out, so that crashes raise the score."""
    damaged = Example("Who is this?", "Basil", (A[: len(A) // 2],), "image:2")
    found = evaluate(llava, llava_processor, {"forget": [*TEXT_QUESTIONS, damaged]}, max_new_tokens=4)
    summary = found.summaries["forget"]
    assert len(found.records) == summary.count == 3
    assert summary.failed == 1
    assert summary.probability == pytest.approx(sum(record.probability for record in found.records[:2]) / 3)
    counts = OutcomeCounts.of([Outcome.CORRECT, Outcome.FAILED])
    assert (counts.total, counts.failed, counts.access_rate) == (2, 1, 0.5)


def test_text_questions_are_scored_with_their_own_answer(llava, llava_processor):
    """MMUnlearner's loop over text questions decodes the last image question's answer each time."""
    examples = [IMAGE_QUESTION, *TEXT_QUESTIONS]
    found = evaluate(llava, llava_processor, {"mixed": examples}, max_new_tokens=6).records
    alone = [
        generate_answers(llava, llava_processor, prepare([x], llava_processor), max_new_tokens=6) for x in examples
    ]
    assert [[record.prediction] for record in found] == alone
    assert len({record.prediction for record in found}) == 3
    assert [record.rouge_l_f for record in found] == [rouge_l(r.prediction, r.reference).f for r in found]


def test_generation_sees_the_image(llava, llava_processor):
    """CLEAR generates without pixel values: its "multimodal" ROUGE is of text alone."""
    seen = []
    hook = llava.get_submodule("model.vision_tower").register_forward_pre_hook(
        lambda _, args, inputs: seen.append(inputs.get("pixel_values", *args[:1])), with_kwargs=True
    )
    examples = [IMAGE_QUESTION, Example(IMAGE_QUESTION.question, "Basil", (B,))]
    answers = generate_answers(llava, llava_processor, prepare(examples, llava_processor), max_new_tokens=6)
    hook.remove()
    assert len(torch.cat(seen).unique(dim=0)) == 2
    assert answers[0] != answers[1]


def test_replies_begin_where_the_prompt_ends(llava, llava_processor):
    """MLLMU-Bench cuts the decoded text at a fixed offset or at a marker, which a question may hold as well."""
    short, long = "Who?", "ASSISTANT: Who is this person, said the USER: and why? ASSISTANT: tell me. " * 2
    examples = [Example(question, "Basil", (A,)) for question in (short, long)]
    together = generate_answers(llava, llava_processor, prepare(examples, llava_processor), max_new_tokens=5)
    for example, answer in zip(examples, together, strict=True):
        item = prepare([example], llava_processor)
        assert generate_answers(llava, llava_processor, item, max_new_tokens=5) == [answer]
        assert "ASSISTANT" not in answer
        assert example.question.strip() not in answer


def test_every_split_is_scored_by_the_same_call(llava, llava_processor):
    """KVW's evaluation passes an argument to the retain split that does not exist, and stops there."""
    splits = {"forget": [IMAGE_QUESTION], "retain": TEXT_QUESTIONS, "real faces": [IMAGE_QUESTION]}
    found = evaluate(llava, llava_processor, splits, max_new_tokens=3)
    assert [summary.count for summary in found.summaries.values()] == [1, 2, 1]
    assert found.records[0].prediction == found.records[3].prediction


def test_no_accuracy_depends_on_a_seed(llava, llava_processor, monkeypatch):
    """UnLOK-VQA samples the answers that its neighbourhood accuracy is computed from."""
    monkeypatch.setattr(llava.generation_config, "do_sample", True)
    monkeypatch.setattr(llava.generation_config, "temperature", 10.0)
    found = []
    for seed in (0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found.append(evaluate(llava, llava_processor, {"near": TEXT_QUESTIONS}, max_new_tokens=6))
    assert found[0] == found[1]


def test_the_model_is_called_from_one_thread(llava, llava_processor):
    """OFFSIDE calls one model from several threads."""
    threads = []
    hook = llava.register_forward_pre_hook(lambda *_: threads.append(threading.get_ident()))
    evaluate(llava, llava_processor, {"forget": [IMAGE_QUESTION, *TEXT_QUESTIONS]}, max_new_tokens=3, budget=1)
    hook.remove()
    assert set(threads) == {threading.get_ident()}


def test_bleu_of_short_answers_is_not_taken_for_forgetting():
    """A one-word answer repeated exactly has a BLEU of 0.18 under the smoothing that the benchmarks use."""
    assert bleu("Paris", "Paris") == pytest.approx(0.1778, abs=1e-4)
    assert fmean([bleu("a b c d", "a b c d"), bleu("Paris", "Paris")]) < 0.6
