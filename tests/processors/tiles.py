"""Processors that cut a large picture into tiles of one size."""

from __future__ import annotations

from dataclasses import replace

from tests.processors.entry import PATCH, QWEN_TOKENS, SIDE, SQUARE, RealProcessor, chat, chatml

PINPOINTS = [[32, 64], [64, 32], [64, 64]]
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
ROWS_AND_COLUMNS = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))


def _idefics3(name: str, **further: str) -> RealProcessor:
    """SmolVLM has the processor of Idefics3, and videos."""
    return RealProcessor(
        f"{name}Processor",
        f"{name}ImageProcessor",
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
        **further,
    )


TILES: dict[str, RealProcessor] = {
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
    "idefics3": _idefics3("Idefics3"),
    "smolvlm": _idefics3("SmolVLM", videos="SmolVLMVideoProcessor", package="num2words"),
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
    "ovis2": RealProcessor(
        "Ovis2Processor",
        "Ovis2ImageProcessor",
        chatml("<image>\n"),
        (*QWEN_TOKENS, "<image>", "<IMG_ATOM>", *OVIS_INDICATORS),
        image_settings={"size": SQUARE, "crop_to_patches": True, "max_patches": 4},
        settings={"image_seq_length": 16},
        token_ids={"image_token_id": "<IMG_ATOM>", "visual_indicator_token_ids": list(OVIS_INDICATORS)},
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
TILES |= {
    "llava_next_video": replace(
        TILES["llava_next"],
        processor="LlavaNextVideoProcessor",
        videos="LlavaNextVideoVideoProcessor",
        special_tokens=(*TILES["llava_next"].special_tokens, "<video>"),
        token_ids={"image_token_index": "<image>", "video_token_index": "<video>"},
    ),
}
