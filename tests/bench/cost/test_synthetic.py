"""Made-up batches have the sizes of real ones, and models of shapes the sizes of the published ones."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image
from tests.fixtures import built
from tests.tiny_models import noise_png
from transformers import Gemma3Config
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

import kvw
from kvw.bench.cost.models import build, find_config, random_model
from kvw.bench.cost.recipe import DataPart, ModelPart, shipped_shapes
from kvw.bench.cost.synthetic import MadeUpProcessor, made_up
from kvw.data import Example, answer_batch, prepare

PUBLISHED = {
    # Parameters, counted in the published checkpoints; the last is ours.
    "llava-1.5-7b": 7_063_427_072,
    "qwen2-vl-2b": 2_208_985_600,
    "qwen2.5-vl-7b": 8_292_166_656,
    "llava-100m": 101_975_040,
    "smollm2-135m": 134_515_008,
}


@pytest.mark.thorough
def test_shapes_have_the_published_numbers_of_parameters():
    assert set(shipped_shapes()) == set(PUBLISHED)
    for name, parameters in PUBLISHED.items():
        with torch.device("meta"):
            model = build(find_config(name))
        assert model.num_parameters() == parameters


def test_unknown_shapes_are_answered_with_the_nearest():
    with pytest.raises(kvw.UserError, match=r"(?s)no shape 'llava-7b'.*did you mean 'llava-1\.5-7b'"):
        find_config("llava-7b")


def test_a_shape_may_be_a_folder_or_a_toy_model(saved):
    assert find_config(str(saved["qwen2_vl"])).model_type == "qwen2_vl"
    assert find_config("toy:vanilla").text_config.num_hidden_layers == 6


def test_a_random_model_is_the_same_every_time_and_in_its_dtype():
    one, other = (random_model(ModelPart(config="toy:vanilla", dtype="bfloat16", device="cpu")) for _ in range(2))
    assert not one.training
    assert all(parameter.dtype == torch.bfloat16 for parameter in one.parameters())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_models_of_text_alone_get_batches_without_pictures():
    data = DataPart(question=6, answer=3)
    processor = MadeUpProcessor(find_config("smollm2-135m"), data.image)
    assert (processor.sees, processor.image_tokens) == (False, 0)
    examples = made_up(data, "forget", 2, pictures=processor.sees)
    assert [example.images for example in examples] == [(), ()]
    prepared = prepare(examples, processor)
    assert [(one.length, len(one.answer_ids)) for one in prepared] == [(9, 3), (9, 3)]
    batch = answer_batch(prepared, processor)
    assert batch["input_ids"].shape == (2, 9)
    assert not any("pixel" in name for name in batch)


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "qwen2_5_vl"])
def test_a_batch_has_the_names_types_and_pictures_of_the_real_processor(family):
    model, processor = built(family)
    image = (140, 84)
    real = Example("Who is this?", "Jody", (noise_png(1, image),))
    expected = answer_batch(prepare([real], processor), processor)
    ours = MadeUpProcessor(model.config, image)
    found = answer_batch(prepare(made_up(DataPart(question=8, answer=5), "forget", 1), ours), ours)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
    image_id = model.config.image_token_id
    if family == "llava":
        assert found["pixel_values"].shape == expected["pixel_values"].shape
        assert int((found["input_ids"] == image_id).sum()) == int((expected["input_ids"] == image_id).sum())
    assert int((found["labels"] != -100).sum()) == 5
    assert found["input_ids"].shape[1] == ours.image_tokens + 8 + 5
    model(**{name: value for name, value in found.items() if name != "labels"})


@pytest.mark.thorough
@pytest.mark.parametrize("size", [(640, 480), (1000, 300), (20, 30), (5000, 4000)])
def test_pictures_have_as_many_tokens_as_qwens_image_processor_makes(size):
    config = find_config("qwen2-vl-2b")
    real = Qwen2VLImageProcessor(min_pixels=56 * 56, max_pixels=12_845_056)
    _, height, width = real(images=Image.new("RGB", size), return_tensors="pt")["image_grid_thw"][0].tolist()
    assert MadeUpProcessor(config, size).image_tokens == height * width // 4


def test_llava_has_the_576_tokens_of_its_patches():
    assert MadeUpProcessor(find_config("llava-1.5-7b"), (640, 480)).image_tokens == 576


def test_examples_are_of_one_length_and_share_pictures_if_asked():
    data = DataPart(question=10, answer=4, questions_per_image=2)
    examples = made_up(data, "forget", 6)
    assert [len(example.question) for example in examples] == [9] * 6
    assert [examples[0].images == other.images for other in examples] == [True, True] + [False] * 4
    assert [len({example.answer for example in examples[:count]}) for count in range(1, 7)] == [1, 1, 2, 2, 3, 3]
    assert not {example.images for example in examples} & {example.images for example in made_up(data, "retain", 6)}
    with Image.open(io.BytesIO(examples[0].images[0])) as picture:
        assert picture.size == (1, 1)


def test_what_cannot_be_made_up_is_refused():
    with pytest.raises(kvw.UserError, match="not for gemma3"):
        MadeUpProcessor(Gemma3Config(), (1, 1))
    config = find_config("toy:vanilla")
    config.text_config.vocab_size = 20
    with pytest.raises(kvw.UserError, match=r"(?s)too small.*20 tokens"):
        MadeUpProcessor(config, (1, 1))
    with pytest.raises(kvw.UserError, match=r"(?s)few characters.*'é'"):
        MadeUpProcessor(find_config("toy:vanilla"), (1, 1)).tokenizer.encode("é")
