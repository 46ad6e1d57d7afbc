"""Coefficients token by token agree with what is measured over all, and every token has its class."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.families import random_model, shrunk_config
from tests.text_models import build as build_text
from tests.tiny_models import build, noise_png

from kvw.data import Example, prepare
from kvw.data.text import TextProcessor
from kvw.measuring.examples import measure_examples
from kvw.measuring.token_coefficients import TokenCoefficients, token_coefficients
from kvw.models.finding import find_value_matrices

EXAMPLE = Example("Who is shown here?", "Jody Vance", (noise_png(1),))
TEXT = Example("Where was Jody Vance born?", "In Paris.")


def looked_at(model: Any, processor: Any, example: Example, weight: Any = torch.ones) -> TokenCoefficients:
    matrices = find_value_matrices(model)
    weights = {matrix.key: weight(matrix.width) for matrix in matrices}
    return token_coefficients(model, processor, prepare([example], processor)[0], matrices, weights)


@pytest.mark.parametrize(("family", "example"), [("llava", EXAMPLE), ("qwen2_vl", EXAMPLE), ("llava", TEXT)])
def test_over_answer_positions_they_are_what_is_measured(family: str, example: Example) -> None:
    model, processor = build(family)
    found = looked_at(model, processor, example)
    measured = measure_examples(model, processor, prepare([example], processor)).statistics
    answer = torch.tensor([one == "answer" for one in found.classes])
    assert int(answer.sum()) == len(prepare([example], processor)[0].answer_ids)
    for key in measured.sums:
        wanted = measured.coefficients(key).mean().item()
        assert found.mean[key.layer][answer].mean().item() == pytest.approx(wanted, rel=1e-5)


def test_every_token_has_its_class() -> None:
    model, processor = build("llava")
    found = looked_at(model, processor, EXAMPLE)
    assert {token for token, kind in zip(found.tokens, found.classes, strict=True) if kind == "image"} == {"<image>"}
    asked = "".join(token for token, kind in zip(found.tokens, found.classes, strict=True) if kind == "question")
    assert asked.strip() == EXAMPLE.question
    told = "".join(found.tokens[place + 1] for place, kind in enumerate(found.classes) if kind == "answer")
    assert told.strip() == EXAMPLE.answer
    assert found.classes[-1] == "template"  # it predicts nothing
    text = looked_at(model, processor, TEXT)
    assert "image" not in text.classes
    assert "".join(t for t, kind in zip(text.tokens, text.classes, strict=True) if kind == "question").strip() == (
        TEXT.question
    )


def test_the_accessor_weighs_the_vectors() -> None:
    model, processor = build("llava")
    even = looked_at(model, processor, TEXT)
    for layer, values in even.mean.items():
        assert torch.allclose(even.weighted[layer], values)
    one = looked_at(model, processor, TEXT, lambda width: torch.nn.functional.one_hot(torch.tensor(3), width).float())
    assert not torch.allclose(one.weighted[0], even.weighted[0])
    assert torch.equal(one.mean[0], even.mean[0])
    nothing = looked_at(model, processor, TEXT, torch.zeros)
    assert not nothing.weighted[0].any()


def test_of_experts_those_that_a_token_was_routed_to_count() -> None:
    _, tokenizer = build_text("llama")
    processor = TextProcessor(tokenizer)
    config = shrunk_config("mixtral")
    config.vocab_size = len(processor.tokenizer)
    model = random_model(config)
    found = looked_at(model, processor, TEXT)
    assert all((values > 0).all() for values in found.mean.values())
    assert all(torch.allclose(found.weighted[layer], values) for layer, values in found.mean.items())


def test_hooks_are_gone_afterwards() -> None:
    model, processor = build("llava")
    looked_at(model, processor, TEXT)
    assert not any(matrix.module._forward_pre_hooks for matrix in find_value_matrices(model))
