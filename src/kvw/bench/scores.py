"""What one item of a benchmark gave, and how it is scored."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from kvw.data.benchmarks import Item, Task
from kvw.data.benchmarks.prompts import letter
from kvw.evaluation.metrics import (
    Outcome,
    bleu,
    closest_option,
    cloze_match,
    exact_match,
    extraction_strength,
    forget_accuracy_both,
    forget_rouge_both,
    keyword_share,
    letter_outcome,
    likelihood_outcome,
    normalised_probability,
    normalised_substring,
    open_outcome,
    retain_accuracy_both,
    retain_rouge_both,
    rouge_1,
    rouge_2,
    rouge_l,
    truth_ratio,
)
from kvw.strict import Strict

if TYPE_CHECKING:
    from kvw.evaluation.probability import TokenScores

SUBSTRING_METRICS = {"substring", "normalised_substring"}
COMPUTED = {
    "choice_accuracy": "correct",
    "closest_option": "closest_option",
    "exact_match": "exact_match",
    "substring": "normalised_substring",
    "normalised_substring": "normalised_substring",
    "rouge_1_f": "rouge_1_f",
    "rouge_2_f": "rouge_2_f",
    "rouge_l_f": "rouge_l_f",
    "rouge_l_recall": "rouge_l_recall",
    "bleu": "bleu",
    "keywords": "keywords",
    "probability": "probability",
    "truth_ratio": "truth_ratio",
}
"""What benchmarks call their metrics, and the score of an item that they are a mean of."""
HEADLINES = COMPUTED.keys() - {"probability", "truth_ratio"}
"""Metrics that can stand for a task in a table."""

PAIRED = {
    "acc_f": ("correct", forget_accuracy_both),
    "acc_r": ("correct", retain_accuracy_both),
    "rlf": ("rouge_l_f", forget_rouge_both),
    "rlr": ("rouge_l_f", retain_rouge_both),
}
"""Metrics over pairs of one question with an image and in words: the score they are of, and how they are computed."""


class ItemScore(Strict):
    """What one item gave. An item that could not be asked has an ``error``, and counts as failed."""

    split: str
    task: str
    identifier: str
    subject: str
    modality: str
    pair: str = ""
    """What the same question in the other modality has too; empty where the benchmark has no pairs."""
    reply: str | None
    outcome: Outcome
    scores: dict[str, float]
    """Scores by metric. ``correct`` is there for every item; what was not measured is absent."""
    error: str = ""


def score_reply(task: Task, item: Item, reply: str | None) -> tuple[Outcome, dict[str, float]]:
    """How an item ended by what the model said, and the scores that follow from the text.

    An open answer is correct if it holds the reference answer (where the benchmark's own metric is a substring) or is
    it; a blank if it is filled with it; a choice if the reply names the right option.

    Args:
        task: What was asked for.
        item: The item.
        reply: What was said; None if there is none because something failed.
    """
    if task.prompt.reply == "letter" and item.correct is not None:
        options = {letter(index): text for index, text in enumerate(item.choices)}
        outcome = letter_outcome(reply, options, letter(item.correct))
        return outcome, {"correct": float(outcome is Outcome.CORRECT)}
    if reply is None:
        return Outcome.FAILED, {"correct": 0.0}
    matches = exact_match
    if task.kind == "cloze":
        matches = cloze_match
    elif SUBSTRING_METRICS & set(task.metrics):
        matches = normalised_substring
    correct = matches(reply, item.answer)
    longest = rouge_l(reply, item.answer)
    scores = {
        "correct": float(correct),
        "exact_match": float(exact_match(reply, item.answer)),
        "normalised_substring": float(normalised_substring(reply, item.answer)),
        "rouge_1_f": rouge_1(reply, item.answer).f,
        "rouge_2_f": rouge_2(reply, item.answer).f,
        "rouge_l_f": longest.f,
        "rouge_l_recall": longest.recall,
        "bleu": bleu(reply, item.answer),
    }
    if item.choices and item.correct is not None:
        scores["closest_option"] = float(closest_option(reply, item.choices) == item.correct)
    if keywords := item.metadata.get("keywords"):
        scores["keywords"] = keyword_share(reply, keywords)
    return open_outcome(reply, correct), scores


def paired_score(metric: str, named: Collection[str]) -> str:
    """The score of an item that a metric over pairs is of, in a task that names these metrics.

    Where the benchmark reads choices by the closest option, its accuracies over pairs go by that as well.
    """
    score, _ = PAIRED[metric]
    return "closest_option" if score == "correct" and "closest_option" in named else score


def score_preference(likelihoods: Mapping[str, float]) -> tuple[Outcome, dict[str, float]]:
    """How a choice ended whose options are compared by likelihood, without a reply.

    Args:
        likelihoods: From :func:`score_likelihoods`; empty if the item could not be asked.
    """
    if not likelihoods:
        return Outcome.FAILED, {"correct": 0.0}
    correct = likelihoods["likeliest_correct"]
    return Outcome.CORRECT if correct else Outcome.INCORRECT, {"correct": correct}


def score_likelihoods(item: Item, answer: TokenScores, others: Sequence[TokenScores]) -> dict[str, float]:
    """The scores that follow from the probability of the reference answer and of its alternatives.

    Args:
        item: The item.
        answer: Scores of the tokens of the reference answer.
        others: The same of the options of a choice in order; else of the paraphrase (if the item has one) and of every
            perturbed answer.
    """
    scores = {"probability": math.exp(-answer.loss), "extraction_strength": extraction_strength(answer.is_argmax)}
    if item.choices:
        values = {letter(index): -one.loss for index, one in enumerate(others)}
        outcome = likelihood_outcome(values, letter(item.correct or 0))
        return {"probability": scores["probability"], "likeliest_correct": float(outcome is Outcome.CORRECT)}
    if item.perturbed:
        paraphrased = others[0].loss if item.paraphrases else answer.loss
        wrong = [one.loss for one in others[len(item.paraphrases[:1]) :]]
        scores["truth_ratio"] = truth_ratio(paraphrased, wrong)
        scores["normalised_probability"] = normalised_probability(answer.loss, wrong)
    return scores


def alternatives(task: Task, item: Item) -> list[str]:
    """Texts whose probability is compared with the reference answer's, in the order of :func:`score_likelihoods`."""
    if item.choices:
        texts = [letter(index) for index in range(len(item.choices))]
        return texts if task.prompt.reply == "letter" else list(item.choices)
    return [*item.paraphrases[:1], *item.perturbed] if item.perturbed else []
