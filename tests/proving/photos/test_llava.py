"""A pretrained decoder behind a vision tower: it is the decoder that it was, and an ordinary LLaVA to the loader."""

from __future__ import annotations

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from kvw.data import prepare
from kvw.data.batches import answer_batch
from kvw.models.checkpoint import find_checkpoint
from kvw.models.loading import load_model, load_processor
from kvw.proving.photos.llava import IMAGE, PATCH, SIDE, build_model, build_processor
from kvw.proving.photos.people import by_name, by_photo, everyone

TOKENS = (SIDE // PATCH) ** 2


@pytest.fixture(scope="module")
def built(decoder):
    processor = build_processor(decoder)
    return decoder, build_model(decoder, processor), processor


def test_the_decoder_says_what_it_said(built):
    text, model, processor = built
    decoder = load_model(find_checkpoint(str(text)))
    ids = torch.tensor([processor.tokenizer("Where does Mara Lind live?")["input_ids"]])
    with torch.no_grad():
        before, after = decoder(input_ids=ids).logits, model(input_ids=ids).logits
    assert after.shape[-1] == before.shape[-1] + 1
    assert torch.equal(after[..., :-1], before)


def test_the_new_token_is_the_mean_of_the_others(built):
    _, model, processor = built
    rows = model.get_input_embeddings().weight
    assert processor.image_token_id == len(rows) - 1
    assert torch.equal(rows[-1], rows[:-1].mean(dim=0))
    assert model.lm_head.weight is rows


@pytest.mark.thorough
def test_the_saved_checkpoint_is_the_same_model_to_the_loader(built, tmp_path):
    _, model, processor = built
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    checkpoint = find_checkpoint(str(tmp_path / "model"))
    loaded, reader = load_model(checkpoint), load_processor(checkpoint)
    assert type(loaded) is LlavaForConditionalGeneration
    example = by_photo(everyone()[0], "job", 0, 0)
    (item,) = prepare([example], reader, loaded.config)
    assert item.full == prepare([example], processor, model.config)[0].full
    batch = answer_batch([item], reader)
    assert int((batch["input_ids"] == loaded.config.image_token_id).sum()) == TOKENS
    batch.pop("labels")
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)


def test_a_picture_stands_before_its_question_and_nothing_is_said_before(built):
    _, _, processor = built
    shown, asked = prepare([by_photo(everyone()[0], "job", 0, 0), by_name(everyone()[0], "job", 0)], processor)
    assert shown.prompt == f"<|im_start|>user\n{IMAGE}\n{shown.example.question}<|im_end|>\n<|im_start|>assistant\n"
    assert asked.prompt == f"<|im_start|>user\n{asked.example.question}<|im_end|>\n<|im_start|>assistant\n"
    assert shown.length == len(shown.token_ids) + TOKENS - 1
