"""The plain sentences, and their perplexity."""

from __future__ import annotations

import math

import pytest
import torch
from tests import text_models

from kvw.data.text import TextProcessor
from kvw.evaluation.language import everyday_examples
from kvw.proving import plain_text
from kvw.retain.texts import plain_texts


def test_there_are_enough_sentences_and_none_is_shipped_elsewhere():
    sentences = plain_text.plain_text()
    assert len(set(sentences)) == len(sentences) >= 200
    assert not {*sentences} & {*plain_texts(), *(example.answer for example in everyday_examples())}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])  # with a begin token of its own, and without any
def test_perplexity_is_that_of_the_bare_sentences(monkeypatch, kind):
    sentences = ("The cat sleeps.", "It rained all day, and nobody went out.")
    monkeypatch.setattr(plain_text, "plain_text", lambda: sentences)
    model, tokenizer = text_models.build(kind)
    losses = []
    for sentence in sentences:
        added = bool(tokenizer.bos_token_id is not None and kind == "llama")
        tokens = torch.tensor([tokenizer(sentence, add_special_tokens=added)["input_ids"]])
        with torch.no_grad():
            table = model(tokens).logits[0].log_softmax(-1)
        first = (
            1 if added else 0
        )  # the sentence's first token does not count, whether something stands before it or not
        losses += [-table[place, tokens[0, place + 1]].item() for place in range(first, tokens.shape[1] - 1)]
    found = plain_text.perplexity(model, TextProcessor(tokenizer))
    assert found == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-4)
