"""Tiny text models held in every scheme that runs on a CPU, and what their linear maps really do."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStatus,
    apply_quantization_config,
)
from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig
from torchao.quantization.granularity import PerGroup
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    TorchAoConfig,
)

from kvw.models.quantised import quantisation

HIDDEN, WIDTH, LAYERS = 64, 128, 4
"""Multiples of what bitsandbytes packs together on a CPU: blocks of 64 in, 32 out."""


@functools.cache
def full_precision() -> PreTrainedModel:
    """A tiny random Llama in float32; copy it before changing it."""
    config = LlamaConfig(
        vocab_size=96,
        hidden_size=HIDDEN,
        intermediate_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.15,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return LlamaForCausalLM(config).eval()


def _loaded(dtype: torch.dtype, config: Any = None) -> PreTrainedModel:
    with TemporaryDirectory() as folder:
        full_precision().save_pretrained(folder)
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, device_map={"": "cpu"}, quantization_config=config
        )
    return model.eval()


def save_compressed(folder: Path, bits: int) -> None:
    """Write the model as compressed-tensors has it: four bits in groups of 32, or eight for each output."""
    model: Any = copy.deepcopy(full_precision())
    grouped = {"strategy": "group", "group_size": 32} if bits == 4 else {"strategy": "channel"}
    layout = "pack-quantized" if bits == 4 else "int-quantized"
    scheme = QuantizationScheme(
        targets=["Linear"], weights=QuantizationArgs(num_bits=bits, type="int", **grouped), format=layout
    )
    config = QuantizationConfig(
        config_groups={"all": scheme},
        ignore=["lm_head"],
        format=layout,
        quantization_status=QuantizationStatus.FROZEN,
    )
    apply_quantization_config(model, config)
    for module in model.modules():
        if getattr(module, "quantization_scheme", None) is not None:
            scale = module.weight_scale
            largest = module.weight.unflatten(1, (scale.shape[1], -1)).abs().amax(-1)
            scale.data = largest / (2 ** (bits - 1) - 0.5)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(folder)


def _compressed(bits: int) -> PreTrainedModel:
    with TemporaryDirectory() as folder:
        save_compressed(Path(folder), bits)
        return AutoModelForCausalLM.from_pretrained(folder, dtype="auto", device_map={"": "cpu"}).eval()


SCHEMES: dict[str, Callable[[], PreTrainedModel]] = {
    "bitsandbytes 8-bit": lambda: _loaded(torch.float32, BitsAndBytesConfig(load_in_8bit=True)),
    "bitsandbytes 8-bit in bfloat16": lambda: _loaded(torch.bfloat16, BitsAndBytesConfig(load_in_8bit=True)),
    "bitsandbytes nf4": lambda: _loaded(
        torch.float32, BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    ),
    "bitsandbytes fp4": lambda: _loaded(
        torch.bfloat16,
        BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=True),
    ),
    "torchao int8": lambda: _loaded(torch.float32, TorchAoConfig(Int8WeightOnlyConfig(version=2))),
    "torchao int8 in bfloat16": lambda: _loaded(torch.bfloat16, TorchAoConfig(Int8WeightOnlyConfig(version=2))),
    "torchao int4": lambda: _loaded(torch.float32, TorchAoConfig(IntxWeightOnlyConfig(torch.int4, PerGroup(32)))),
    "compressed-tensors int8": lambda: _compressed(8),
    "compressed-tensors int4": lambda: _compressed(4),
}
FULL = {
    "float32": lambda: _loaded(torch.float32),
    "bfloat16": lambda: _loaded(torch.bfloat16),
    "float16": lambda: _loaded(torch.float16),
}


def reference(model: PreTrainedModel) -> PreTrainedModel:
    """The same functions in float32: every linear map's weight is what the map does to the unit vectors."""
    exact: Any = copy.deepcopy(full_precision())
    with torch.no_grad():
        model(torch.zeros(1, 2, dtype=torch.int64))  # compressed-tensors unpacks now
        for name, module in model.named_modules():
            if quantisation(module):
                seen = module(torch.eye(module.in_features, dtype=model.dtype))
                exact.get_submodule(name).weight.copy_(seen.T)
                continue
            for part, parameter in module.named_parameters(recurse=False):
                exact.get_parameter(f"{name}.{part}").copy_(parameter)
    return exact
