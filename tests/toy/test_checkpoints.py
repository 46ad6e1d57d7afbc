"""The shipped checkpoints, loaded with plain transformers, and the requirement on what they know."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from kvw.data import read_examples
from kvw.errors import UserError
from kvw.evaluation.evaluation import evaluate
from kvw.toy import World, checkpoint
from kvw.toy.batches import conversation
from kvw.toy.portraits import draw_portrait
from kvw.toy.world import LONGEST_ANSWER, SPLITS

WORLD = World()
NAMES = ("vanilla", "gold")
KEPT = ("retain", "unused")
HELD_OUT = ("_new_photos", "_new_phrasings")


@pytest.fixture(scope="module")
def loaded():
    return {
        name: (
            AutoModelForImageTextToText.from_pretrained(checkpoint(name)),
            AutoProcessor.from_pretrained(checkpoint(name)),
        )
        for name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_are_small_safe_and_computed_with_in_float32(loaded, name):
    folder = checkpoint(name)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 10_000_000
    assert {file.suffix for file in folder.iterdir()} <= {".json", ".safetensors", ".jinja"}
    model, processor = loaded[name]
    assert type(model).__name__ == "LlavaForConditionalGeneration"
    assert type(processor).__name__ == "LlavaProcessor"
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    automatic = AutoModelForImageTextToText.from_pretrained(folder, dtype="auto")
    assert automatic.dtype == torch.float32


def test_gold_has_the_same_tokenizer_and_recipe_and_says_what_it_is():
    records = {name: json.loads((checkpoint(name) / "world.json").read_text()) for name in NAMES}
    assert records["vanilla"]["without_forget"] is False
    assert records["gold"]["without_forget"] is True
    assert records["gold"]["recipe"] == records["vanilla"]["recipe"]
    assert records["gold"]["world"] == records["vanilla"]["world"]
    assert World(**records["vanilla"]["world"]) == WORLD
    tokenizers = [(checkpoint(name) / "tokenizer.json").read_bytes() for name in NAMES]
    assert tokenizers[0] == tokenizers[1]


def test_an_unknown_checkpoint_is_refused():
    with pytest.raises(UserError, match="no such toy checkpoint"):
        checkpoint("silver")


def test_the_conversation_is_rendered_as_llava_does(loaded):
    _, processor = loaded["vanilla"]
    image = draw_portrait(WORLD.everyone[0], 0, 96)
    chat = conversation("Who is this?", image)
    assert processor.apply_chat_template(chat, add_generation_prompt=True) == ("USER: <image>\nWho is this? ASSISTANT:")
    whole = processor.apply_chat_template(conversation("Who is this?", image, "Mara Lind"))
    assert whole == "USER: <image>\nWho is this? ASSISTANT: Mara Lind</s>"
    by_name = [{"role": "user", "content": "Where does Mara Lind live?"}]
    assert processor.apply_chat_template(by_name, add_generation_prompt=True) == (
        "USER: Where does Mara Lind live? ASSISTANT:"
    )
    tokens = processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    assert int((tokens["input_ids"] == processor.image_token_id).sum()) == (96 // 16) ** 2
    assert tokens["input_ids"][0, 0] == processor.tokenizer.bos_token_id
    assert tokens["pixel_values"].shape == (1, 3, 96, 96)


def test_an_answer_continues_the_tokens_of_its_prompt(loaded):
    """Training glues prompt and answer together; the template must give the same tokens."""
    _, processor = loaded["vanilla"]
    for line in WORLD.split("forget_text")[:40]:
        prompt = processor.apply_chat_template(
            conversation(line.question), add_generation_prompt=True, tokenize=True, return_dict=True
        )["input_ids"][0]
        whole = processor.apply_chat_template(
            conversation(line.question, answer=line.answer), tokenize=True, return_dict=True
        )["input_ids"][0]
        answer = processor.tokenizer.encode(f" {line.answer}</s>", add_special_tokens=False)
        assert whole == prompt + answer
        assert 1 <= len(answer) - 1 <= 8


@pytest.fixture(scope="module")
def scores(loaded, world):
    """Exact match of both models on twenty lines of every split, asked anew."""
    splits = {name: read_examples(world / f"{name}.jsonl")[:: -(-len(WORLD.split(name)) // 20)] for name in SPLITS}
    return {name: evaluate(*loaded[name], splits, max_new_tokens=LONGEST_ANSWER).summaries for name in NAMES}


@pytest.mark.slow
def test_vanilla_reaches_the_requirement(scores):
    for group in ("forget", *KEPT):
        # One mistake in fifty is what 0.98 allows: none in twenty.
        assert scores["vanilla"][group].exact >= 0.98, group
        for variant in HELD_OUT:
            assert scores["vanilla"][group + variant].exact >= 0.9, group + variant
    assert scores["vanilla"]["general"].exact >= 0.95


@pytest.mark.slow
def test_gold_does_not_know_the_forget_people_and_is_as_good_on_all_others(scores):
    for split, summary in scores["gold"].items():
        if split.startswith("forget"):
            assert summary.exact <= 0.1, split
        else:
            assert summary.exact >= 0.9, split


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_exact_matches_reach_the_requirement(name):
    scores = json.loads((checkpoint(name) / "world.json").read_text())["exact_match"]
    for group in ("forget", *KEPT) if name == "vanilla" else KEPT:
        assert min(scores[group], scores[f"{group}_text"]) >= 0.98
        assert min(scores[group + variant] for variant in HELD_OUT) >= 0.9
    assert scores["general"] >= 0.95
