"""How a model goes on after a text, with what it has computed of the text used again."""

from __future__ import annotations

import pytest
import torch
from tests import tiny_models
from tests.families import build_family
from tests.fixtures import built

from kvw.data import Example, answer_batch, prepare
from kvw.evaluation.probability import score_batch
from kvw.measuring.engine import evaluating
from kvw.retain.continuing import can_continue, continue_text

TEXT = [41, 52, 63, 74, 45]


def from_scratch(model, tokens):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
    return logits.float().log_softmax(-1)


def followed(model, *, dropped=(), admit=lambda token: True, width=4, length=4):
    """All that ``continue_text`` tells at every length; those at the places ``dropped`` of each length do not go on."""
    told = []

    def going_on(running):
        told.append(list(running))
        return [place not in dropped for place in range(len(running))]

    with evaluating(model):
        continue_text(model, TEXT, width=width, length=length, admit=admit, going_on=going_on)
    return told


def check_every_step(model, told):
    for running in told:
        for one in running:
            assert one.log_probability == pytest.approx(probability(model, one.tokens), abs=1e-3)


def probability(model, tokens):
    """Of tokens of which each but the first is the most probable one."""
    total = 0.0
    for place, token in enumerate(tokens):
        scores = from_scratch(model, [*TEXT, *tokens[:place]])
        total += float(scores[token])
        if place:
            assert float(scores.max() - scores[token]) < 1e-4
    return total


def test_continuations_are_those_of_each_beginning_alone(family):
    model = built(family)[0]
    told = followed(model)
    assert [{len(one.tokens) for one in running} for running in told] == [{1}, {2}, {3}, {4}]
    best = from_scratch(model, TEXT).topk(4).indices.tolist()
    assert [one.tokens[0] for one in told[-1]] == best
    check_every_step(model, told)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])
def test_pictures_of_an_earlier_question_move_nothing(name):
    model, processor = built(name)
    (item,) = prepare([Example("Who?", "Ada", (tiny_models.noise_png(1, (60, 30)),), "x:1")], processor)
    score_batch(model, answer_batch([item], processor))
    assert any(getattr(module, "rope_deltas", None) is not None for module in model.modules())
    check_every_step(model, followed(model))


@pytest.mark.thorough
@pytest.mark.parametrize("model_type", ["gpt2", "gemma3_text", "qwen3_next", "lfm2", "minimax"])
def test_whatever_the_model_keeps_of_earlier_tokens(model_type):
    model = build_family(model_type)
    check_every_step(model, followed(model, dropped=(1,)))


@pytest.mark.parametrize(("model_type", "expected"), [("llava", True), ("bart", False), ("blip-2", False)])
def test_who_can_go_on(model_type, expected):
    assert can_continue(build_family(model_type)) == expected


def test_what_does_not_go_on_is_not_followed():
    model = built("llava")[0]
    told = followed(model, dropped=(0, 2))
    assert [len(running) for running in told] == [4, 2, 1]
    first = [one.tokens[0] for one in told[0]]
    assert [one.tokens[0] for one in told[1]] == [first[1], first[3]]
    assert [one.tokens[0] for one in told[2]] == [first[3]]
    check_every_step(model, told)


def test_only_admitted_tokens_come_first():
    model = built("llava")[0]
    best = from_scratch(model, TEXT).topk(6).indices.tolist()
    told = followed(model, admit=lambda token: token in best[2:5])
    assert [one.tokens[0] for one in told[0]] == best[2:5]
    assert followed(model, admit=lambda token: False) == []
