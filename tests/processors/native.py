"""Processors that keep the shape of a picture, and cut it into patches as it is."""

from __future__ import annotations

from dataclasses import replace

from tests.processors.entry import PATCH, QWEN_TOKENS, SIDE, RealProcessor, chat, chatml

QWEN_PIXELS = {"size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}, "patch_size": PATCH}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}

NATIVE: dict[str, RealProcessor] = {
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
NATIVE |= {
    "qwen3_vl_moe": NATIVE["qwen3_vl"],
    "qwen3_5": NATIVE["qwen3_vl"],
    "qwen3_5_moe": NATIVE["qwen3_vl"],
    "exaone4_5": replace(
        NATIVE["qwen3_vl"],
        processor="Exaone4_5_Processor",
        videos="Qwen2VLVideoProcessor",
        config={"vision_config.num_key_value_heads": 4},
    ),
    "glm4v_moe": NATIVE["glm4v"],
    "glm46v": replace(
        NATIVE["glm4v"],
        processor="Glm46VProcessor",
        images="Glm46VImageProcessor",
        videos="Glm46VVideoProcessor",
    ),
    "glm_ocr": replace(
        NATIVE["glm4v"],
        processor="Glm46VProcessor",
        images="Glm46VImageProcessor",
        videos="Glm46VVideoProcessor",
    ),
    "lighton_ocr": replace(
        NATIVE["mistral3"],
        processor="LightOnOcrProcessor",
        roles={
            "bos_token": "<s>",
            "image_token": "[IMG]",
            "image_break_token": "[IMG_BREAK]",
            "image_end_token": "[IMG_END]",
        },
        token_ids={"image_token_id": "[IMG]"},
    ),
}
