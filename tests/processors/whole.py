"""Processors that bring every picture to one size or one number of tokens."""

from __future__ import annotations

from tests.processors.entry import PATCH, SIDE, SQUARE, RealProcessor, chat

WHOLE: dict[str, RealProcessor] = {
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
        },
        token_ids={"image_token_id": "<image_placeholder>"},
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
}
