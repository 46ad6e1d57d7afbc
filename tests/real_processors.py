"""Tiny random models with the real processor class of their family: one entry of data for each.

The image processor is the real one with small sizes, the tokenizer is trained on the spot (see
:mod:`tests.tiny_models`) with the family's special tokens, the chat template has the form of the family's. Models are
those of :mod:`tests.families` with the processor's token ids and image sizes.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import transformers
from tests.families import random_model, shrunk_config
from tests.processors.entry import SQUARE, RealProcessor, chat
from tests.processors.native import NATIVE
from tests.processors.tiles import TILES
from tests.processors.whole import WHOLE
from tests.tiny_models import train_tokenizer
from transformers import PretrainedConfig, PreTrainedModel

PROCESSORS = {**NATIVE, **TILES, **WHOLE}
REFUSED = {
    "paligemma": RealProcessor(
        "PaliGemmaProcessor",
        "SiglipImageProcessor",
        chat("", "", "", "<image>"),
        ("<eos>", "<pad>", "<bos>", "<image>"),
        image_settings={"size": SQUARE, "image_seq_length": 16},
        roles={"bos_token": "<bos>", "image_token": "<image>"},
        needs_image="the processor demands one",
    ),
}
"""What kvw does not take, and says so."""
NO_ENTRY = "not tried yet"
LEFT_OUT = {
    "aria": NO_ENTRY,
    "blip-2": NO_ENTRY,
    "deepseek_vl_hybrid": "its second vision tower has no tiny form here yet",
    "ernie4_5_vl_moe": NO_ENTRY,
    "fast_vlm": "its vision tower is one of another library (timm), not tried yet",
    "florence2": "an encoder-decoder: the answer does not follow the prompt in one text",
    "gemma3n": NO_ENTRY,
    "gemma4": NO_ENTRY,
    "instructblip": NO_ENTRY,
    "minicpmv4_6": NO_ENTRY,
    "minicpmv4_7": NO_ENTRY,
    "molmo2": NO_ENTRY,
    "paligemma": "refused: its processor puts a line break after the answer",
    "video_llava": NO_ENTRY,
}
"""Vision-language families that are tested without their processor, and why."""


@functools.cache
def build_processor(model_type: str) -> Any:
    """The family's processor; tests leave it as it was."""
    entry = {**PROCESSORS, **REFUSED}[model_type]
    end, padding = entry.special_tokens[:2]
    named = {name: token for name, token in entry.roles.items() if name != "bos_token"}
    begin = {"bos_token": entry.roles["bos_token"]} if "bos_token" in entry.roles else {}
    tokenizer = train_tokenizer(
        list(entry.special_tokens), eos_token=end, pad_token=padding, extra_special_tokens=named, **begin
    )
    videos = {"video_processor": getattr(transformers, entry.videos)()} if entry.videos else {}
    return getattr(transformers, entry.processor)(
        image_processor=getattr(transformers, entry.images)(**entry.image_settings),
        tokenizer=tokenizer,
        chat_template=entry.template,
        **videos,
        **entry.settings,
    )


@functools.cache
def build_model(model_type: str) -> PreTrainedModel:
    """A tiny random model in float32 for the family's processor; copy it before changing it."""
    entry, tokenizer = PROCESSORS[model_type], build_processor(model_type).tokenizer
    config = shrunk_config(model_type)
    text_config = config.get_text_config(decoder=True)
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 4096, "tie_word_embeddings": False}
    for part in (config, text_config):
        for name, value in sizes.items():
            if hasattr(part, name):
                setattr(part, name, value)
    for name, value in entry.config.items():
        _set(config, name, value)
    for name, token in entry.token_ids.items():
        _set(config, name, tokenizer.convert_tokens_to_ids(token))
    model = random_model(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    with torch.no_grad():
        for parameter in model.get_output_embeddings().parameters():
            parameter.mul_(4)  # logits that hardly differ would make greedy decoding depend on the last bit
        for name, parameter in model.named_parameters():
            if name.endswith("_gate") and parameter.numel() == 1:
                parameter.fill_(0.5)  # Mllama's are born shut, and no image would come through
    return model


def _set(config: PretrainedConfig, name: str, value: Any) -> None:
    path, _, last = name.rpartition(".")
    part = config
    for step in filter(None, path.split(".")):
        part = getattr(part, step)
    setattr(part, last, value)
