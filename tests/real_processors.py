"""Tiny random models with the real processor class of their family: one entry of data for each.

The image processor is the real one with small sizes, the tokenizer is trained on the spot (see
:mod:`tests.tiny_models`) with the family's special tokens, the chat template has the form of the family's. Models are
those of :mod:`tests.families` with the processor's token ids and image sizes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import transformers
from tests.families import random_model, shrunk_config
from tests.tiny_models import train_tokenizer
from transformers import PretrainedConfig, PreTrainedModel

SIDE, PATCH = 32, 8
"""Pixels of an image's side and of a patch's."""
SQUARE = {"height": SIDE, "width": SIDE}
PINPOINTS = [[32, 64], [64, 32], [64, 64]]


@dataclass(frozen=True)
class RealProcessor:
    """What makes the processor of one family, and what the tiny model needs to go with it."""

    processor: str
    """Class names in transformers."""
    images: str
    template: str
    special_tokens: tuple[str, ...]
    """The first ends an answer, the second pads."""
    image_settings: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the processor."""
    videos: str = ""
    roles: Mapping[str, str] = field(default_factory=dict)
    """Special tokens that the tokenizer knows by name."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """By dotted name in the model's configuration."""
    token_ids: Mapping[str, str | list[str]] = field(default_factory=dict)
    """Dotted name in the configuration, and the token (or tokens) whose id goes there."""
    needs_image: str = ""
    """Why a question without an image cannot be asked."""
    package: str = ""
    """What has to be installed besides kvw and its extras."""


def chat(user: str, assistant: str, end: str, image: str, start: str = "") -> str:
    """A chat template: what a turn of the user, of the assistant, the end of a turn and an image look like.

    Args:
        user: Before a question.
        assistant: Where the model starts to answer.
        end: After every turn.
        image: The placeholder.
        start: Before the first turn.
    """
    return (
        start + "{% for message in messages %}"
        "{% if message['role'] == 'user' %}" + user + "{% else %}" + assistant + "{% endif %}"
        "{% for content in message['content'] %}"
        "{% if content['type'] == 'image' %}" + image + "{% else %}{{ content['text'] }}{% endif %}"
        "{% endfor %}" + end + "{% endfor %}"
        "{% if add_generation_prompt %}" + assistant + "{% endif %}"
    )


def chatml(image: str, start: str = "") -> str:
    """The form that Qwen has made common."""
    return chat("<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n", image, start)


QWEN_PIXELS = {"size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}, "patch_size": PATCH}
QWEN_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|im_start|>")
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
COHERE_TOKENS = (
    "<|END_OF_TURN_TOKEN|>",
    "<PAD>",
    "<BOS_TOKEN>",
    "<|START_OF_TURN_TOKEN|>",
    "<|USER_TOKEN|>",
    "<|CHATBOT_TOKEN|>",
    "<|START_OF_IMG|>",
    "<|END_OF_IMG|>",
    "<|IMG_PATCH|>",
    "<|IMG_LINE_BREAK|>",
)
COHERE_TEMPLATE = chat(
    "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    "<|END_OF_TURN_TOKEN|>",
    "<image>",
    "<BOS_TOKEN>",
)
OVIS_INDICATORS = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
NO_ENTRY = "not tried yet"
ROWS_AND_COLUMNS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))

PROCESSORS: dict[str, RealProcessor] = {
    "qwen3_vl": RealProcessor(
        "Qwen3VLProcessor",
        "Qwen2VLImageProcessor",
        chatml("<|vision_start|><|image_pad|><|vision_end|>"),
        (*QWEN_TOKENS, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
        image_settings=QWEN_PIXELS,
        videos="Qwen3VLVideoProcessor",
        config={"vision_config.deepstack_visual_indexes": [0, 1], "text_config.rope_parameters": MROPE},
        token_ids={
            "image_token_id": "<|image_pad|>",
            "video_token_id": "<|video_pad|>",
            "vision_start_token_id": "<|vision_start|>",
            "vision_end_token_id": "<|vision_end|>",
        },
    ),
    "llava_next": RealProcessor(
        "LlavaNextProcessor",
        "LlavaNextImageProcessor",
        chat("[INST] ", " [/INST] ", "</s>", "<image>\n", "<s>"),
        ("</s>", "<pad>", "<s>", "<image>"),
        image_settings={"size": {"shortest_edge": SIDE}, "crop_size": SQUARE, "image_grid_pinpoints": PINPOINTS},
        settings={"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
        roles={"bos_token": "<s>"},
        config={"image_grid_pinpoints": PINPOINTS},
        token_ids={"image_token_index": "<image>"},
    ),
    "llava_onevision": RealProcessor(
        "LlavaOnevisionProcessor",
        "LlavaOnevisionImageProcessor",
        chatml("<image>\n"),
        (*QWEN_TOKENS, "<image>", "<video>"),
        image_settings={"size": SQUARE, "image_grid_pinpoints": PINPOINTS},
        settings={"num_image_tokens": 16, "vision_feature_select_strategy": "full"},
        videos="LlavaOnevisionVideoProcessor",
        config={"image_grid_pinpoints": PINPOINTS},
        token_ids={"image_token_index": "<image>", "video_token_index": "<video>"},
    ),
    "internvl": RealProcessor(
        "InternVLProcessor",
        "GotOcr2ImageProcessor",
        chatml("<IMG_CONTEXT>\n"),
        (*QWEN_TOKENS, "<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
        image_settings={"size": SQUARE, "max_patches": 4},
        settings={"image_seq_length": 4},
        videos="InternVLVideoProcessor",
        roles={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        config={"vision_config.image_size": [SIDE, SIDE], "vision_config.patch_size": [PATCH, PATCH]},
        token_ids={"image_token_id": "<IMG_CONTEXT>"},
    ),
    "gemma3": RealProcessor(
        "Gemma3Processor",
        "Gemma3ImageProcessor",
        chat("<start_of_turn>user\n", "<start_of_turn>model\n", "<end_of_turn>\n", "<start_of_image>", "<bos>"),
        (
            "<end_of_turn>",
            "<pad>",
            "<bos>",
            "<start_of_turn>",
            "<start_of_image>",
            "<end_of_image>",
            "<image_soft_token>",
        ),
        image_settings={"size": SQUARE},
        settings={"image_seq_length": 4},
        roles={
            "bos_token": "<bos>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
        config={"mm_tokens_per_image": 4},
        token_ids={
            "image_token_index": "<image_soft_token>",
            "boi_token_index": "<start_of_image>",
            "eoi_token_index": "<end_of_image>",
        },
    ),
    "idefics3": RealProcessor(
        "Idefics3Processor",
        "Idefics3ImageProcessor",
        chat("User:", "Assistant: ", "<end_of_utterance>\n", "<image>", "<|im_start|>"),
        (
            "<end_of_utterance>",
            "<pad>",
            "<|im_start|>",
            "<image>",
            "<fake_token_around_image>",
            "<global-img>",
            *ROWS_AND_COLUMNS,
        ),
        image_settings={"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}},
        settings={"image_seq_len": 4},
        roles={"bos_token": "<|im_start|>"},
        token_ids={"image_token_id": "<image>"},
    ),
    "smolvlm": RealProcessor(
        "SmolVLMProcessor",
        "SmolVLMImageProcessor",
        chat("User:", "Assistant: ", "<end_of_utterance>\n", "<image>", "<|im_start|>"),
        (
            "<end_of_utterance>",
            "<pad>",
            "<|im_start|>",
            "<image>",
            "<fake_token_around_image>",
            "<global-img>",
            *ROWS_AND_COLUMNS,
        ),
        image_settings={"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}},
        settings={"image_seq_len": 4},
        videos="SmolVLMVideoProcessor",
        package="num2words",
        roles={"bos_token": "<|im_start|>"},
        token_ids={"image_token_id": "<image>"},
    ),
    "mistral3": RealProcessor(
        "PixtralProcessor",
        "PixtralImageProcessor",
        chat("[INST]", "[/INST]", "", "[IMG]", "<s>"),
        ("</s>", "<pad>", "<s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        image_settings={"size": {"longest_edge": 2 * SIDE}, "patch_size": PATCH},
        settings={"patch_size": PATCH, "spatial_merge_size": 2},
        roles={"bos_token": "<s>"},
        config={"vision_config.head_dim": 8, "vision_config.image_size": 2 * SIDE},
        token_ids={"image_token_index": "[IMG]"},
    ),
    "llama4": RealProcessor(
        "Llama4Processor",
        "Llama4ImageProcessor",
        chat(
            "<|header_start|>user<|header_end|>\n\n",
            "<|header_start|>assistant<|header_end|>\n\n",
            "<|eot|>",
            "<|image|>",
            "<|begin_of_text|>",
        ),
        (
            "<|eot|>",
            "<|finetune_right_pad|>",
            "<|begin_of_text|>",
            "<|header_start|>",
            "<|header_end|>",
            "<|image_start|>",
            "<|image_end|>",
            "<|image|>",
            "<|patch|>",
            "<|tile_x_separator|>",
            "<|tile_y_separator|>",
        ),
        image_settings={"size": SQUARE, "max_patches": 4},
        settings={"patch_size": PATCH},
        roles={"bos_token": "<|begin_of_text|>"},
        config={
            "vision_config.intermediate_size": 128,
            "vision_config.projector_input_dim": 64,
            "vision_config.projector_output_dim": 64,
        },
        token_ids={
            "image_token_index": "<|patch|>",
            "boi_token_index": "<|image_start|>",
            "eoi_token_index": "<|image_end|>",
        },
    ),
    "aya_vision": RealProcessor(
        "AyaVisionProcessor",
        "GotOcr2ImageProcessor",
        COHERE_TEMPLATE,
        (*COHERE_TOKENS, "<image>", "TILE_GLOBAL", "TILE_1", "TILE_2", "TILE_3", "TILE_4"),
        image_settings={"size": SQUARE, "max_patches": 4},
        settings={"patch_size": PATCH, "img_size": SIDE, "downsample_factor": 2},
        roles={"bos_token": "<BOS_TOKEN>"},
        token_ids={"image_token_index": "<|IMG_PATCH|>"},
    ),
    "cohere2_vision": RealProcessor(
        "Cohere2VisionProcessor",
        "Cohere2VisionImageProcessor",
        COHERE_TEMPLATE.replace("<image>", "<|IMG_PATCH|>"),
        COHERE_TOKENS,
        # The processor takes the side of a tile in tokens to be its patches' side in pixels: 2 and 2, as 16 and 16.
        image_settings={"size": SQUARE, "max_patches": 4, "patch_size": 2},
        roles={
            "bos_token": "<BOS_TOKEN>",
            "boi_token": "<|START_OF_IMG|>",
            "eoi_token": "<|END_OF_IMG|>",
            "image_token": "<|IMG_PATCH|>",
            "img_line_break_token": "<|IMG_LINE_BREAK|>",
        },
        config={"alignment_intermediate_size": 64},
        token_ids={"image_token_id": "<|IMG_PATCH|>"},
    ),
    "deepseek_vl": RealProcessor(
        "DeepseekVLProcessor",
        "DeepseekVLImageProcessor",
        chat("User: ", "Assistant: ", "\n\n", "<image_placeholder>", "<bos>You are a helpful assistant.\n\n"),
        ("<eos>", "<pad>", "<bos>", "<image_placeholder>"),
        image_settings={"size": SQUARE},
        settings={"num_image_tokens": 16},
        roles={"bos_token": "<bos>", "image_token": "<image_placeholder>"},
        token_ids={"image_token_id": "<image_placeholder>"},
    ),
    "janus": RealProcessor(
        "JanusProcessor",
        "JanusImageProcessor",
        chat("<|User|>: ", "<|Assistant|>: ", "\n\n", "<image_placeholder>\n", "<bos>"),
        ("<eos>", "<pad>", "<bos>", "<|User|>", "<|Assistant|>", "<image_placeholder>", "<begin_image>", "<end_image>"),
        image_settings={"size": SQUARE},
        settings={"num_image_tokens": 16},
        roles={
            "bos_token": "<bos>",
            "image_token": "<image_placeholder>",
            "boi_token": "<begin_image>",
            "eoi_token": "<end_image>",
        },
        config={
            "vision_config.num_image_tokens": 16,
            "vq_config.base_channels": 32,
            "vq_config.channel_multiplier": [1, 1],
            "vq_config.latent_channels": 8,
            "vq_config.num_embeddings": 16,
            "vq_config.num_patches": 4,
            "vq_config.projection_dim": 32,
            "vq_config.image_token_embed_dim": 32,
        },
        token_ids={"image_token_id": "<image_placeholder>"},
    ),
    "ovis2": RealProcessor(
        "Ovis2Processor",
        "Ovis2ImageProcessor",
        chatml("<image>\n"),
        (*QWEN_TOKENS, "<image>", "<IMG_ATOM>", *OVIS_INDICATORS),
        image_settings={"size": SQUARE, "crop_to_patches": True, "max_patches": 4},
        settings={"image_seq_length": 16},
        token_ids={"image_token_id": "<IMG_ATOM>", "visual_indicator_token_ids": list(OVIS_INDICATORS)},
    ),
    "idefics2": RealProcessor(
        "Idefics2Processor",
        "Idefics2ImageProcessor",
        chat("User:", "Assistant: ", "<end_of_utterance>\n", "<image>", "<s>"),
        ("<end_of_utterance>", "<pad>", "<s>", "<fake_token_around_image>", "<image>"),
        image_settings={"size": {"shortest_edge": SIDE, "longest_edge": 2 * SIDE}},
        settings={"image_seq_len": 4},
        roles={"bos_token": "<s>"},
        config={
            "vision_config.image_size": 2 * SIDE,
            "perceiver_config.resampler_n_latents": 4,
            "perceiver_config.resampler_depth": 1,
            "perceiver_config.resampler_n_heads": 2,
            "perceiver_config.resampler_head_dim": 16,
            "perceiver_config.num_key_value_heads": 1,
        },
        token_ids={"image_token_id": "<image>"},
    ),
    "mllama": RealProcessor(
        "MllamaProcessor",
        "MllamaImageProcessor",
        chat(
            "<|start_header_id|>user<|end_header_id|>\n\n",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "<|eot_id|>",
            "<|image|>",
            "<|begin_of_text|>",
        ),
        ("<|eot_id|>", "<|pad|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|image|>"),
        image_settings={"size": SQUARE},
        roles={"bos_token": "<|begin_of_text|>"},
        config={"vision_config.intermediate_layers_indices": [1], "text_config.cross_attention_layers": [1, 3]},
        token_ids={"image_token_index": "<|image|>"},
    ),
    "vipllava": RealProcessor(
        "LlavaProcessor",
        "CLIPImageProcessor",
        chat("###Human: ", "###Assistant:", "", "<image>\n", "<s>"),
        ("</s>", "<pad>", "<s>", "<image>"),
        image_settings={"size": {"shortest_edge": SIDE}, "crop_size": SQUARE},
        settings={"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
        roles={"bos_token": "<s>"},
        # Releases of transformers before 5.23 have the second name.
        config={"vision_feature_layer": [-1, -2], "vision_feature_layers": [-1, -2]},
        token_ids={"image_token_index": "<image>"},
    ),
    "glm4v": RealProcessor(
        "Glm4vProcessor",
        "Glm4vImageProcessor",
        chat(
            "<|user|>\n",
            "<|assistant|>\n",
            "",
            "<|begin_of_image|><|image|><|end_of_image|>",
            "[gMASK]<sop>",
        ),
        (
            "<|user|>",
            "<|endoftext|>",
            "<|assistant|>",
            "[gMASK]",
            "<sop>",
            "<|begin_of_image|>",
            "<|end_of_image|>",
            "<|image|>",
            "<|begin_of_video|>",
            "<|end_of_video|>",
            "<|video|>",
        ),
        image_settings=QWEN_PIXELS,
        videos="Glm4vVideoProcessor",
        token_ids={
            "image_token_id": "<|image|>",
            "video_token_id": "<|video|>",
            "image_start_token_id": "<|begin_of_image|>",
            "image_end_token_id": "<|end_of_image|>",
            "video_start_token_id": "<|begin_of_video|>",
            "video_end_token_id": "<|end_of_video|>",
        },
    ),
    "lfm2_vl": RealProcessor(
        "Lfm2VlProcessor",
        "Lfm2VlImageProcessor",
        chatml("<image>", "<|startoftext|>"),
        (
            *QWEN_TOKENS,
            "<|startoftext|>",
            "<image>",
            "<|image_start|>",
            "<|image_end|>",
            "<|img_thumbnail|>",
            *(f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5)),
        ),
        image_settings={
            "tile_size": SIDE,
            "encoder_patch_size": PATCH,
            "min_image_tokens": 1,
            "max_image_tokens": 4,
            "max_tiles": 4,
        },
        roles={"bos_token": "<|startoftext|>"},
        config={"projector_hidden_size": 64},
        token_ids={"image_token_id": "<image>"},
    ),
}
PROCESSORS |= {
    "qwen3_vl_moe": PROCESSORS["qwen3_vl"],
    "qwen3_5": PROCESSORS["qwen3_vl"],
    "qwen3_5_moe": PROCESSORS["qwen3_vl"],
    "glm4v_moe": PROCESSORS["glm4v"],
    "glm46v": replace(
        PROCESSORS["glm4v"],
        processor="Glm46VProcessor",
        images="Glm46VImageProcessor",
        videos="Glm46VVideoProcessor",
    ),
    "llava_next_video": replace(
        PROCESSORS["llava_next"],
        processor="LlavaNextVideoProcessor",
        videos="LlavaNextVideoVideoProcessor",
        special_tokens=(*PROCESSORS["llava_next"].special_tokens, "<video>"),
        token_ids={"image_token_index": "<image>", "video_token_index": "<video>"},
    ),
    "exaone4_5": replace(
        PROCESSORS["qwen3_vl"],
        processor="Exaone4_5_Processor",
        videos="Qwen2VLVideoProcessor",
        config={"vision_config.num_key_value_heads": 4},
    ),
    "glm_ocr": replace(
        PROCESSORS["glm4v"],
        processor="Glm46VProcessor",
        images="Glm46VImageProcessor",
        videos="Glm46VVideoProcessor",
    ),
    "lighton_ocr": replace(
        PROCESSORS["mistral3"],
        processor="LightOnOcrProcessor",
        roles={
            "bos_token": "<s>",
            "image_token": "[IMG]",
            "image_break_token": "[IMG_BREAK]",
            "image_end_token": "[IMG_END]",
        },
        token_ids={"image_token_id": "[IMG]"},
    ),
    "kimi_k25": RealProcessor(
        "Kimi_K25Processor",
        "Kimi_K25ImageProcessor",
        chat(
            "<|im_user|>user<|im_middle|>",
            "<|im_assistant|>assistant<|im_middle|>",
            "<|im_end|>",
            "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>",
        ),
        (
            "<|im_end|>",
            "[PAD]",
            "<|im_user|>",
            "<|im_assistant|>",
            "<|im_middle|>",
            "<|media_begin|>",
            "<|media_content|>",
            "<|media_pad|>",
            "<|media_end|>",
            "<|kimi_k25_video_placeholder|>",
        ),
        image_settings={"size": {"max_height": 64, "max_width": 64}, "patch_size": PATCH},
        videos="Kimi_K25VideoProcessor",
        config={"projection_hidden_size": 32},
        token_ids={
            "image_token_id": "<|media_pad|>",
            "video_token_id": "<|kimi_k25_video_placeholder|>",
            "vision_start_token_id": "<|media_begin|>",
            "vision_end_token_id": "<|media_end|>",
        },
    ),
}
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
