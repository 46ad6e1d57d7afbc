"""The model before anybody is planted: a pretrained text decoder behind a small vision tower.

It is transformers' own LLaVA with CLIP's vision tower and image processor. A picture becomes nine image tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import AddedToken
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPVisionConfig,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

SIDE, PATCH = 96, 32
"""Width and height of a picture and of a patch, in pixels; each patch becomes one image token."""
IMAGE = "<image>"
END = "<|im_end|>"
"""Ends a turn, and a decoded answer."""
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% set content = message['content'] %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if content is string %}{% set images, text = '', content %}"
    "{% else %}"
    "{% set images = '<image>' * (content | selectattr('type', 'equalto', 'image') | list | length) %}"
    "{% set text = content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join(' ') %}"
    "{% endif %}"
    "{% if images %}{{ images + '\n' }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ text + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ text + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML as the decoder knows it, with the pictures of a message before its text, and no system prompt."""


def image_processor() -> CLIPImageProcessorPil:
    """CLIP's, for pictures of :data:`SIDE` pixels."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, do_center_crop=True
    )


def build_processor(text: Path) -> LlavaProcessor:
    """The decoder's own tokenizer with one token more, CLIP's image processor, and the chat template.

    Args:
        text: The checkpoint of the decoder.
    """
    tokenizer = AutoTokenizer.from_pretrained(text)
    tokenizer.add_tokens(AddedToken(IMAGE, special=True, normalized=False))
    tokenizer.chat_template = None
    tokenizer.padding_side = "left"
    return LlavaProcessor(
        image_processor=image_processor(),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def vision_config() -> CLIPVisionConfig:
    """The shape of the vision tower."""
    return CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
    )


def build_model(text: Path, processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    """The pretrained decoder in float32 behind a tower and a projector of random numbers.

    Every weight of the decoder is as it was. The row of the new token is the mean of all others.

    Args:
        text: The checkpoint of the decoder.
        processor: From :func:`build_processor`.
    """
    decoder: Any = AutoModelForCausalLM.from_pretrained(text, dtype=torch.float32)
    own = decoder.config
    tokens = {"pad_token_id": own.pad_token_id, "bos_token_id": own.bos_token_id, "eos_token_id": own.eos_token_id}
    settings = {**own.to_dict(), "vocab_size": len(processor.tokenizer)}
    config = LlavaConfig(
        vision_config=vision_config(),
        text_config=type(own).from_dict({key: value for key, value in settings.items() if key != "architectures"}),
        image_token_index=processor.image_token_id,
        image_seq_length=(SIDE // PATCH) ** 2,
        # The tower was trained for this decoder, so its last layer is used.
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        **tokens,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    state = decoder.model.state_dict()
    rows = state["embed_tokens.weight"]
    more = len(processor.tokenizer) - len(rows)
    state["embed_tokens.weight"] = torch.cat([rows, rows.mean(dim=0, keepdim=True).expand(more, -1)])
    cast(Any, model.model.language_model).load_state_dict(state)
    model.tie_weights()
    model.generation_config = GenerationConfig(do_sample=False, **tokens)
    model.train(False)
    return model
