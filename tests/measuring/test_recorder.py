"""What the recorder notices."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from tests.batches import logits, text_batch

from kvw.errors import UserError
from kvw.measuring.engine import measure
from kvw.models.finding import find_value_matrices

BATCH = text_batch(2, 8, 2, seed=0)


def test_the_forward_ends_inside_the_last_measured_layer(llava):
    reached = []
    for matrix in find_value_matrices(llava):
        matrix.module.register_forward_hook(lambda *_, layer=matrix.key.layer: reached.append(layer))
    llava.lm_head.register_forward_hook(lambda *_: reached.append("logits"))
    measure(llava, [BATCH], layers=(1, 2))
    assert reached == [0, 1]  # layer 2 is measured at the input of its value projection, which never runs


def test_a_value_matrix_that_saw_no_token_is_reported(llava):
    layer = llava.model.language_model.layers[1]
    layer.mlp.forward = torch.nn.Identity().forward  # this layer's value projection never runs
    with pytest.raises(UserError, match="saw no token") as caught:
        measure(llava, [BATCH], layers=(0, 2))
    assert caught.value.found == "model.language_model.layers.1.mlp.down_proj"


def test_labels_that_do_not_line_up_with_the_decoder_are_refused(llava):
    longer = {**BATCH, "labels": torch.nn.functional.pad(BATCH["labels"], (0, 3), value=-100)}
    longer.pop("attention_mask")
    with pytest.raises(UserError, match="16 tokens where the batch has 22"):
        measure(llava, [longer])


def test_float_inputs_are_cast_to_the_model_and_sums_stay_exact(llava, llava_processor):
    image = Image.new("RGB", (20, 20), "red")
    inputs = llava_processor(text=["USER: <image> hello"], images=[image], return_tensors="pt")
    assert inputs["pixel_values"].dtype == torch.float32
    statistics = measure(llava.to(torch.bfloat16), [{**inputs, "labels": inputs["input_ids"]}])
    assert all(value.dtype == torch.float64 for value in statistics.sums.values())


def test_every_module_gets_its_own_training_flag_back(llava):
    llava.train()
    llava.model.vision_tower.eval()
    before = {name: module.training for name, module in llava.named_modules()}
    measure(llava, [BATCH])
    assert {name: module.training for name, module in llava.named_modules()} == before


def test_hooks_are_gone_afterwards(llava):
    before = logits(llava, BATCH)
    measure(llava, [BATCH])
    assert torch.equal(logits(llava, BATCH), before)
    assert not any(module._forward_pre_hooks for module in llava.modules())
