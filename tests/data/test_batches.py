import dataclasses
import io

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests import tiny_models

from kvw.data import Example, answer_batch, image_groups, prepare, prompt_batch, to_model
from kvw.data.batches import TOKENS_OF_AN_IMAGE, TOKENS_PER_IMAGE
from kvw.errors import UserError

WIDE, TALL, SMALL = (
    tiny_models.noise_png(1, (60, 30)),
    tiny_models.noise_png(2, (30, 60)),
    tiny_models.noise_png(3, (5, 5)),
)
ONE_IMAGE = [
    Example("Who is this?", "Basil Mahfouz Al-Kuwaiti", (WIDE,), "one:1"),
    Example("Where was the woman on this picture born?\n", " Kuwait\n", (TALL,), "one:2"),
    Example("Paris?", "Paris", (SMALL,), "one:3"),
]
TWO_IMAGES = [
    Example("Same?", "No", (WIDE, SMALL), "two:1"),
    Example("Which is larger, the first or the second?", "The second.", (SMALL, TALL), "two:2"),
]
TEXT_ONLY = [
    Example("Who wrote it?", "Ada 🦊", (), "none:1"),
    Example("What is the occupation of her father, in full?", "Florist", (), "none:2"),
]
EVERYTHING = ONE_IMAGE + TWO_IMAGES + TEXT_ONLY
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=15) | st.text(" \n\tabAP:.é🦊", max_size=8)


def rows_of(batch):
    """Each row of token ids and labels without its padding."""
    return [
        (ids[mask == 1].tolist(), labels[mask == 1].tolist())
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True)
    ]


@pytest.mark.parametrize("examples", [ONE_IMAGE, TWO_IMAGES, TEXT_ONLY])
def test_labels_are_the_answer_at_the_end_and_nothing_else(processor, examples):
    prepared = prepare(examples, processor)
    batch = answer_batch(prepared, processor)
    assert batch["labels"].dtype == batch["input_ids"].dtype == torch.int64
    assert batch["labels"].shape == batch["input_ids"].shape
    for item, (ids, labels) in zip(prepared, rows_of(batch), strict=True):
        count = len(item.answer_ids)
        assert labels == [-100] * (len(labels) - count) + list(item.answer_ids)
        assert ids[-count:] == list(item.answer_ids)
        assert processor.tokenizer.decode(labels[-count:]).strip() == item.example.answer.strip()
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
    image_positions = batch["input_ids"] == processor.image_token_id
    assert image_positions.any() == bool(examples[0].images)
    assert (batch["labels"][image_positions] == -100).all()


@pytest.mark.thorough
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3), images=st.integers(0, 2))
def test_any_text_is_labelled_at_the_end_of_its_row(processor, texts, images):
    assume(all(answer.strip() for _, answer in texts))
    assume(not any("<" in question + answer for question, answer in texts))
    prepared = prepare([Example(q, a, (SMALL,) * images) for q, a in texts], processor)
    batch = answer_batch(prepared, processor)
    for (_, answer), (ids, labels) in zip(texts, rows_of(batch), strict=True):
        labelled = [label for label in labels if label != -100]
        assert ids[-len(labelled) :] == labelled == labels[-len(labelled) :]
        decoded = processor.tokenizer.decode(labelled)
        assert decoded.endswith(answer)
        assert not decoded.removesuffix(answer).strip()


@pytest.mark.parametrize("examples", [ONE_IMAGE, TWO_IMAGES, TEXT_ONLY])
@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_do_not_depend_on_batch_size_or_the_tokenizers_padding_side(processor, examples, side, monkeypatch):
    prepared = prepare(examples, processor)
    singles = [answer_batch([item], processor) for item in prepared]
    prompts = [prompt_batch([item], processor)["input_ids"][0].tolist() for item in prepared]
    monkeypatch.setattr(processor.tokenizer, "padding_side", side)
    together = answer_batch(prepared, processor)
    assert rows_of(together) == [rows_of(single)[0] for single in singles]
    assert together["attention_mask"][:, 0].tolist() == [1] * len(examples)
    if examples[0].images:
        assert torch.equal(together["pixel_values"], torch.cat([single["pixel_values"] for single in singles]))
    left = prompt_batch(prepared, processor)
    assert left["attention_mask"][:, -1].tolist() == [1] * len(examples)
    assert len({len(prompt) for prompt in prompts}) > 1
    found = zip(left["input_ids"], left["attention_mask"], strict=True)
    assert [ids[mask == 1].tolist() for ids, mask in found] == prompts
    assert processor.tokenizer.padding_side == side


def test_prompts_are_the_full_rows_without_the_answer(processor):
    prepared = prepare(ONE_IMAGE[:1], processor)
    full = answer_batch(prepared, processor)["input_ids"][0]
    prompt = prompt_batch(prepared, processor)["input_ids"][0]
    assert torch.equal(full[: -len(prepared[0].answer_ids)], prompt)


@pytest.mark.parametrize("has_settings", [True, False])
def test_the_tokenizer_is_left_as_it_was(processor, has_settings):
    backend = processor.tokenizer.backend_tokenizer
    if has_settings:
        backend.enable_padding(direction="left", length=7)
        backend.enable_truncation(5)
    before = backend.to_str()
    try:
        prepared = prepare(ONE_IMAGE, processor)
        assert backend.to_str() == before
        batch = answer_batch(prepared, processor)
        assert backend.to_str() == before
        prompt_batch(prepared, processor)
        assert backend.to_str() == before
    finally:
        backend.no_padding()
        backend.no_truncation()
    assert batch["input_ids"].shape[1] == max(item.length for item in prepared) > 7


def test_truncation_asked_for_by_the_tokenizers_settings_is_not_done(processor, monkeypatch):
    expected = rows_of(answer_batch(prepare(ONE_IMAGE, processor), processor))
    monkeypatch.setitem(processor.tokenizer.init_kwargs, "truncation", True)
    monkeypatch.setitem(processor.tokenizer.init_kwargs, "max_length", 12)
    monkeypatch.setattr(processor.tokenizer, "truncation", True, raising=False)
    monkeypatch.setattr(processor.tokenizer, "max_length", 12, raising=False)
    assert rows_of(answer_batch(prepare(ONE_IMAGE, processor), processor)) == expected


def test_a_tokenizer_without_padding_token_is_lent_its_end_token(processor, monkeypatch):
    tokenizer = processor.tokenizer
    expected = answer_batch(prepare(ONE_IMAGE, processor), processor)
    padding = tokenizer.pad_token
    try:
        tokenizer.pad_token = None
        batch = answer_batch(prepare(ONE_IMAGE, processor), processor)
        assert tokenizer.pad_token is None
        assert rows_of(batch) == rows_of(expected)
        end = tokenizer.eos_token
        tokenizer.eos_token = None
        try:
            with pytest.raises(UserError, match="neither a padding token nor an end token"):
                prepare(ONE_IMAGE, processor)
        finally:
            tokenizer.eos_token = end
    finally:
        tokenizer.pad_token = padding


def test_special_tokens_of_the_template_are_not_doubled(processor):
    beginning = processor.tokenizer.bos_token_id
    if beginning is None:
        assert processor.tokenizer.bos_token is None
        return
    for batch in (answer_batch, prompt_batch):
        ids = batch(prepare(ONE_IMAGE, processor), processor)["input_ids"]
        assert (ids == beginning).sum(dim=1).tolist() == [1, 1, 1]


def test_length_counts_the_expanded_images(processor):
    prepared = prepare(EVERYTHING, processor)
    attended = [int(answer_batch([item], processor)["attention_mask"].sum()) for item in prepared]
    assert [item.length for item in prepared] == attended


def test_length_is_estimated_where_the_processor_does_not_say(processor, monkeypatch):
    known = prepare(TWO_IMAGES[:1], processor)[0]
    text_tokens = len(answer_batch([known], processor)["input_ids"][0]) - known.length
    monkeypatch.setattr(processor, "_get_num_multimodal_tokens", None)
    assert text_tokens == 0
    without = prepare([dataclasses.replace(TWO_IMAGES[0], images=())], processor)[0].length
    assert 2 * TOKENS_PER_IMAGE < prepare(TWO_IMAGES[:1], processor)[0].length < 2 * TOKENS_PER_IMAGE + 2 * without


@pytest.mark.parametrize("name", TOKENS_OF_AN_IMAGE)
def test_length_is_taken_from_what_the_processor_calls_the_tokens_of_an_image(processor, monkeypatch, name):
    monkeypatch.setattr(processor, "_get_num_multimodal_tokens", None)
    estimated = prepare(TWO_IMAGES[:1], processor)[0].length
    monkeypatch.setattr(processor, name, 7, raising=False)
    assert prepare(TWO_IMAGES[:1], processor)[0].length == estimated - 2 * (TOKENS_PER_IMAGE - 7)


def test_image_groups_have_equal_counts_and_mixed_batches_are_refused(processor):
    mixed = [ONE_IMAGE[0], TEXT_ONLY[0], TWO_IMAGES[0], ONE_IMAGE[1], TEXT_ONLY[1]]
    prepared = prepare(mixed, processor)
    assert image_groups(prepared) == [[1, 4], [0, 3], [2]]
    assert image_groups([]) == []
    for batch in (answer_batch, prompt_batch):
        with pytest.raises(ValueError, match=r"equal numbers of images, got \[0, 1, 2\]"):
            batch(prepared, processor)
        with pytest.raises(ValueError, match=r"equal numbers of images, got \[\]"):
            batch([], processor)


def test_images_reach_their_own_row(processor, model):
    """Exchanging the images of two rows exchanges their outputs: no image is read by another row."""
    question = [dataclasses.replace(ONE_IMAGE[0], images=(image,)) for image in (WIDE, TALL)]

    def logits(examples):
        batch = answer_batch(prepare(examples, processor), processor)
        batch.pop("labels")
        with torch.no_grad():
            return model(**batch).logits[:, -1]

    forward, backward = logits(question), logits(question[::-1])
    assert torch.allclose(forward, backward.flip(0), atol=1e-5)
    assert not torch.allclose(forward[0], forward[1], atol=1e-2)


def test_a_row_that_does_not_end_with_the_answer_is_a_user_error(processor):
    item = prepare(ONE_IMAGE[:1], processor)[0]
    other = dataclasses.replace(item, answer_ids=(*item.answer_ids[:-1], item.answer_ids[-1] + 1))
    with pytest.raises(UserError, match="one:1: the processor's tokens do not end with the answer"):
        answer_batch([other], processor)


def test_broken_images_are_found_by_their_header_before_any_batch(processor, tmp_path):
    with pytest.raises(UserError, match="d:1: an image cannot be read"):
        prepare([Example("Q", "A", (b"no image",), "d:1")], processor)
    with pytest.raises(UserError, match="d:1: an image cannot be read"):
        prepare([Example("Q", "A", (tmp_path / "no.png",), "d:1")], processor)
    damaged = prepare([Example("Q", "A", (WIDE[:1000],), "d:1")], processor)
    for batch in (answer_batch, prompt_batch):
        with pytest.raises(UserError, match="d:1: an image cannot be read"):
            batch(damaged, processor)


def test_an_image_that_the_processor_refuses_is_found_before_any_batch(monkeypatch):
    monkeypatch.setattr("kvw.data.images.MOST_ASPECT", 1000)
    _, processor = tiny_models.build("qwen2_vl")
    buffer = io.BytesIO()
    Image.new("RGB", (500, 1)).save(buffer, "PNG")
    with pytest.raises(UserError, match=r"d:1: the processor does not take an image[\s\S]*\(1, 500\)[\s\S]*ratio"):
        prepare([Example("Q", "A", (buffer.getvalue(),), "d:1")], processor)


def test_images_of_one_pixel_and_grey_images_work(processor, model):
    images = []
    for mode, size in (("L", (1, 1)), ("RGBA", (3, 1)), ("P", (1, 3)), ("1", (3, 3))):
        buffer = io.BytesIO()
        Image.new(mode, size).save(buffer, "PNG")
        images.append(buffer.getvalue())
    prepared = prepare([Example("Q", "A", (image,)) for image in images], processor)
    batch = to_model(answer_batch(prepared, processor), model)
    with torch.no_grad():
        assert model(**batch).logits.shape[:2] == batch["input_ids"].shape


def test_a_batch_moves_to_the_models_data_type(processor):
    model = torch.nn.Module()
    model.get_input_embeddings = lambda: torch.nn.Embedding(2, 2)
    model.dtype = torch.bfloat16
    batch = answer_batch(prepare(ONE_IMAGE, processor), processor)
    moved = to_model(batch, model)
    assert {name: tensor.dtype for name, tensor in moved.items() if tensor.is_floating_point()} == {
        "pixel_values": torch.bfloat16
    }
    assert moved["labels"].dtype == torch.int64
    # Offloaded embeddings say nothing about where the input goes.
    model.get_input_embeddings = lambda: torch.nn.Embedding(2, 2, device="meta")
    assert to_model(batch, model)["input_ids"].device.type == "cpu"
