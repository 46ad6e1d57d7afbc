"""Which texts begin alike, and that a beginning that runs once changes no number."""

from __future__ import annotations

import random

import pytest
import torch
from tests import text_models
from tests.tiny_models import noise_png

from kvw.data import Example, answer_batch, prepare
from kvw.data.rendering import common_prefix
from kvw.data.text import TextProcessor
from kvw.errors import UserError
from kvw.measuring.beginnings import LEAST, SHORTEST, Alike, Beginning, find_alike, find_alike_examples

LONG = tuple(range(40))


def saved(groups):
    return sum((len(group.rows) - 1) * group.common for group in groups)


def test_texts_with_a_long_beginning_in_common_are_found_among_others():
    texts = [(*LONG, 1), (7, 8, 9), (*LONG, 2, 3), (), (*LONG, 4)]
    assert find_alike(texts) == [Alike((0, 2, 4), 40)]
    assert find_alike([*texts, *texts])[0] == Alike((0, 2, 4, 5, 7, 9), 40)


def test_one_that_is_little_like_the_others_does_not_spoil_it_for_them():
    texts = [(*LONG, row) for row in range(6)]
    assert find_alike([*texts[:3], (*LONG[:10], 99), *texts[3:]]) == [Alike((0, 1, 2, 4, 5, 6), 40)]


def test_several_groups():
    other = tuple(range(100, 130))
    texts = [(*LONG, 1), (*other, 1), (*LONG, 2), (*other, 2), (*LONG, 3), (*other, 3), (*other, 4)]
    assert find_alike(texts) == [Alike((1, 3, 5, 6), 30), Alike((0, 2, 4), 40)]


@pytest.mark.parametrize("tokens", [SHORTEST - 1, SHORTEST])
def test_a_short_beginning_is_not_worth_it(tokens):
    texts = [(*LONG[:tokens], 100 + row) for row in range(30)]
    assert find_alike(texts) == ([Alike(tuple(range(30)), tokens)] if tokens >= SHORTEST else [])


@pytest.mark.parametrize("rows", [1, 4, 5])
def test_what_saves_few_tokens_is_not_worth_it(rows):
    common = LEAST // 4
    texts = [(*LONG[:common], 100 + row) for row in range(rows)]
    assert find_alike(texts) == ([Alike(tuple(range(rows)), common)] if rows == 5 else [])


@pytest.mark.thorough
def test_the_first_group_is_the_one_that_saves_the_most():
    draw = random.Random(0)
    for _ in range(50):
        texts = [tuple(draw.choices((0, 1), weights=(12, 1), k=draw.randint(10, 60))) for _ in range(40)]
        found = find_alike(texts)
        beginnings = {text[:length] for text in texts for length in range(SHORTEST, len(text) + 1)}
        most = max(len(start) * (sum(text[: len(start)] == start for text in texts) - 1) for start in beginnings)
        assert saved(found[:1]) == (most if most >= LEAST else 0)
        rows = [row for group in found for row in group.rows]
        assert len(set(rows)) == len(rows)
        for group in found:
            assert {texts[row][: group.common] for row in group.rows} == {texts[group.rows[0]][: group.common]}


EXAMPLES = [Example("Which of these people was born in Kuwait City?", f"{'A ' * index}florist") for index in range(8)]


def test_examples_keep_the_token_that_predicts_the_answer():
    processor = TextProcessor(text_models.build("llama")[1])
    prepared = prepare(EXAMPLES, processor)
    (group,) = find_alike_examples(prepared)
    assert group.rows == tuple(range(8))
    assert group.common == len(prepared[0].token_ids) - len(prepared[0].answer_ids) - 1


def test_examples_with_images_are_left_alone(llava_processor):
    images = [Example(item.question, item.answer, (noise_png(1),)) for item in EXAMPLES]
    groups = find_alike_examples(prepare([*images, *EXAMPLES], llava_processor))
    assert [group.rows for group in groups] == [tuple(range(8, 16))]


def test_another_processors_tokens_are_refused():
    model, tokenizer = text_models.build("llama")
    processor = TextProcessor(tokenizer)
    prepared = prepare(EXAMPLES, processor)
    common = common_prefix(prepared[0].token_ids, prepared[1].token_ids) - 1
    other = [*prepared[0].token_ids[: common - 1], 1]
    with torch.no_grad(), pytest.raises(UserError, match="not those of the prepared examples"):
        Beginning(model, other).answer_logits(answer_batch(prepared, processor))
