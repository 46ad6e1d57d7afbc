"""Whether a model writes ordinary language."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from tests.fixtures import built

from kvw.data import prepare
from kvw.evaluation.language import PROMPTS, broken_share, everyday_examples, is_broken, listen
from kvw.evaluation.probability import token_scores


def test_the_shipped_sentences_are_sentences():
    examples = everyday_examples()
    assert len(examples) == 20 >= PROMPTS
    assert len({example.answer for example in examples}) == 20
    for example in examples:
        assert not example.images
        assert example.answer.isascii()
        assert example.answer.endswith(".")
        assert not is_broken(example.answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n",
        "the the the the the the the",
        "It was him. He was there. He was there. He was there.",
        "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
        "Yes.x.x.x.x.x.x.x.x.x.x.x.x.x",
        "1. The cat sat.\n2. The cat sat.\n3. The cat sat.",
        "\u306f\u3044\u3002" * 9,
    ],
)
def test_endless_and_empty_answers_are_broken(answer):
    assert is_broken(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "Anna Miller",
        "no no no",
        "ha ha ha ha ha",
        "555-1234",
        "He came, he saw, he won, and then he went home with a stick and a hat.",
        "the cat and the dog and the bird",
        "the the the the the the the, as he said",
    ],
)
def test_ordinary_answers_are_not(answer):
    assert not is_broken(answer)


def test_shares():
    assert broken_share([]) == 0
    assert broken_share(["", "x", "y", "z"]) == 0.25


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_a_vision_language_model_is_heard_without_pictures(family):
    model, processor = built(family)
    speech = listen(model, processor)
    scores = token_scores(model, processor, prepare(everyday_examples(), processor))
    values = torch.tensor([value for each in scores for value in each.log_probabilities], dtype=torch.float64)
    assert speech.perplexity == pytest.approx(math.exp(-float(values.mean())))
    assert len(speech.answers) == PROMPTS


def test_weights_that_say_nothing_are_heard():
    model, processor = copy.deepcopy(built("llava")[0]), built("llava")[1]
    for parameter in model.parameters():
        parameter.data.zero_()
    size = model.get_output_embeddings().weight.shape[0]
    assert listen(model, processor).perplexity == pytest.approx(size)
