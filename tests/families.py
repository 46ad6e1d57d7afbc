"""A tiny random model of the real class of every family that kvw lists, made by shrinking its default configuration."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    PretrainedConfig,
    PreTrainedModel,
)

from kvw.models.families import DECODERS, FAMILIES

VISION_LANGUAGE = [name for family in FAMILIES for name in family.model_types]
TEXT = [name for decoder in DECODERS for name in decoder.model_types]
NOT_ALONE = {
    "ernie4_5_vl_moe_text": "only inside ernie4_5_vl_moe",
    "glm4v_moe_text": "only inside glm4v_moe",
    "glm_ocr_text": "only inside glm_ocr",
    "glm4v_text": "only inside glm4v and glm46v",
    "mllama_text_model": "only inside mllama",
    "molmo2_text": "only inside molmo2",
    "qwen2_5_vl_text": "only inside qwen2_5_vl",
    "qwen2_vl_text": "only inside qwen2_vl",
    "qwen3_vl_moe_text": "only inside qwen3_vl_moe",
    "qwen3_vl_text": "only inside qwen3_vl",
}
UNTESTED = {
    "blip-2": "its forward insists on an image; found and wired as a full-size skeleton",
    "instructblip": "its forward insists on an image; found and wired as a full-size skeleton",
}
BROKEN = {"llama4": (("5.24",), "its forward asks the text model for `image_outputs`, which that does not return")}
"""Families that fail in transformers itself: in which releases (major and minor number), and how."""
REMARKS = {
    "lfm2": "its configuration states another FFN width than it has",
    "llama4": "transformers 5.24 cannot run it (AttributeError on `image_outputs`); other releases can",
    "mllama": "cross-attention layers see examples with images only",
    "phi4_multimodal": "loaded as a causal language model; its images do not go through the common processor interface",
}
WITH_EXPERTS = (
    "aria",
    "ernie4_5_vl_moe",
    "glm4v_moe",
    "kimi_k25",
    "llama4",
    "qwen3_5_moe",
    "qwen3_vl_moe",
    *(name for decoder in DECODERS for name in decoder.model_types if decoder.experts and name != "gemma4_text"),
)
ENCODER_DECODERS = ("t5", "bart", "florence2")

LAYERS, HIDDEN, WIDTH, VOCABULARY = 4, 32, 64, 128
TEXT_SIZES = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "block_dim", "conv_dim"), HIDDEN),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "decoder_ffn_dim", "encoder_ffn_dim"), WIDTH),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "linear_num_key_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "linear_key_head_dim", "linear_value_head_dim"), HIDDEN // 4),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "num_dense_layers"), 1),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), HIDDEN // 4),
    "interleave_moe_layer_step": 2,
    "intermediate_size_mlp": WIDTH,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    "block_ff_dim": WIDTH,
    "ffn_hidden_size": 4 * HIDDEN,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
    "sliding_window": 32,
}
VISION_SIZES = {
    **dict.fromkeys(("hidden_size", "embed_dim", "out_hidden_size", "projection_dim", "encoder_hidden_size"), 32),
    **dict.fromkeys(("num_attention_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("num_hidden_layers", "depth"), 2),
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
    "num_global_layers": 1,
    "vision_output_dim": 64,
    "vocab_size": VOCABULARY,
}
OVERRIDES: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 2, "num_key_value_heads": 4},
    "deepseek_v3": {"num_key_value_heads": 4},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "ernie4_5_vl_moe_text": {"moe_intermediate_size": [24, 16]},
    "florence_vision": {"depths": [1] * 4, "embed_dim": [16] * 4, "num_heads": [4] * 4, "num_groups": [4] * 4},
    "gemma3n_text": {"intermediate_size": [WIDTH] * LAYERS, "activation_sparsity_pattern": [0.0] * LAYERS},
    "gemma3n_vision": {"architecture": "mobilenetv3_small_050"},
    "hunyuan_v1_moe": {"head_dim": HIDDEN // 4, "num_experts": 4, "moe_topk": 2},
    "janus_vqgan": {
        **{"base_channels": 32, "channel_multiplier": [1, 1], "latent_channels": 8, "num_embeddings": 16},
        **{"num_patches": 4, "projection_dim": 32, "image_token_embed_dim": 32},
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * (LAYERS // 2)},
    "llama4_text": {"moe_layers": [1, 3]},
    "timm_wrapper": {"architecture": "fastvit_t8"},
}
"""What the default configuration leaves open, or states as a list, and vision towers that would be of full size."""
MULTIMODAL_ROPE = {
    **{name: [2, 1, 1] for name in ("glm4v_text", "glm_ocr_text", "qwen2_vl_text", "qwen2_5_vl_text")},
    "ernie4_5_vl_moe_text": [1, 1, 2],
    "glm4v_moe_text": [1, 1, 0],
}
SPECIAL_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def broken_upstream(model_type: str) -> str | None:
    """Why a family does not run with the release of transformers that is installed; None if it does."""
    releases, why = BROKEN.get(model_type, ((), ""))
    release = ".".join(transformers.__version__.split(".")[:2])
    return f"{model_type} is broken in transformers {release}: {why}" if release in releases else None


@functools.cache
def build_family(model_type: str) -> PreTrainedModel:
    """A tiny random model in float32; copy it before changing it.

    Args:
        model_type: From ``VISION_LANGUAGE`` or ``TEXT``.
    """
    return random_model(shrunk_config(model_type))


def shrunk_config(model_type: str) -> PretrainedConfig:
    """The default configuration of a family with tiny sizes."""
    config = AutoConfig.for_model(model_type)
    for name, part in vars(config).items():
        if isinstance(part, PretrainedConfig):
            _shrink(part, VISION_SIZES if name in ("vision_config", "qformer_config") else TEXT_SIZES)
    _shrink(config.get_text_config(decoder=True), TEXT_SIZES)
    _shrink(config, TEXT_SIZES)
    return config


def random_model(config: PretrainedConfig) -> PreTrainedModel:
    """A random model in float32, the same at every call."""
    factory = AutoModelForCausalLM
    if config.model_type in VISION_LANGUAGE:
        factory = AutoModelForImageTextToText
    elif config.model_type in ENCODER_DECODERS:
        factory = AutoModelForSeq2SeqLM
    transformers.logging.set_verbosity_error()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: PreTrainedModel = factory.from_config(config).float().eval()
        # Wider than the usual initialisation, so that coefficients differ enough to matter.
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.normal_(std=0.15)
    return model


def family_batch(model: PreTrainedModel, rows: int, tokens: int, seed: int) -> dict[str, Tensor]:
    """Random text whose last tokens are the answer."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(40, 110, (rows, tokens), generator=generator)
    labels = torch.full_like(ids, -100)
    labels[:, -3:] = ids[:, -3:]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    if model.config.model_type in ENCODER_DECODERS:
        batch["decoder_input_ids"] = ids
    return batch


def _shrink(part: PretrainedConfig, sizes: dict[str, int]) -> None:
    known = part.to_dict()
    for name, value in {**sizes, **SPECIAL_TOKENS}.items():
        if isinstance(known.get(name), int) and not isinstance(known[name], bool):
            setattr(part, name, value)
    for name in ("layer_types", "mlp_layer_types", "no_rope_layers"):
        if isinstance(known.get(name), list):
            setattr(part, name, known[name][:LAYERS])
    for name, value in OVERRIDES.get(part.model_type, {}).items():
        setattr(part, name, value)
    if isinstance(known.get("vision_feature_layer"), list):
        part.vision_feature_layer = [1, 0]
    rope = known.get("rope_parameters")
    if isinstance(rope, dict) and ("mrope_section" in rope or part.model_type in MULTIMODAL_ROPE):
        part.rope_parameters = {**rope, "mrope_section": MULTIMODAL_ROPE.get(part.model_type, [2, 1, 1])}


def table() -> str:
    """docs/families.md."""
    from tests.real_processors import LEFT_OUT  # which builds on this module

    lines = [
        "# Model families",
        "",
        "The table in `src/kvw/models/families.py` says where the value matrices of each family are. kvw checks that",
        "their shapes and neighbours in the model at hand are those of an FFN or of attention. The column *tested*",
        "says how far a family was tried:",
        "",
        "- *weakened*: on text, a tiny random model of the real class gives the same coefficients as plain hooks, in",
        "  float64. An attached edit, a folded edit and the written checkpoint agree.",
        "- *skeleton*: the matrices were found in the full-size model without weights.",
        "",
        "The column *processor* says *real* if the real processor class was used too, with images of different sizes",
        "and with text only, up to coefficients, scores and answers. Padding and batches did not change them. The",
        "images were small, and the tokenizer was trained for the test.",
        "",
        "LLaVA-1.5, Qwen2-VL and Qwen2.5-VL are also tested from data files to the written checkpoint. Text-only",
        "models work on the command line (tested with Llama, Qwen3, OPT and GPT-2). Encoder-decoders do not: weaken",
        "them from Python (`kvw.weaken`). In a mixture of experts each expert is weakened by itself, and so are the",
        "FFNs beside the experts that every token passes. For all families kvw also knows the output projection of",
        "attention, which subspace weakening can weaken. For a model that is not listed, `kvw inspect MODEL` shows",
        "what its structure suggests and how to confirm it. `python -m tests.families` writes this page.",
        "",
        "| model type | kind | tested | processor | remark |",
        "|---|---|---|---|---|",
    ]
    for kind, names in (("vision-language", VISION_LANGUAGE), ("text decoder", TEXT)):
        for name in sorted(names):
            remark = {**NOT_ALONE, **UNTESTED}.get(name, REMARKS.get(name, ""))
            tested = "skeleton" if name in UNTESTED else "weakened"
            if name in WITH_EXPERTS:
                remark = "; ".join(filter(None, ["experts", remark]))
            without = "none" if name in UNTESTED else "text only"
            processor = f"{without}: {LEFT_OUT[name]}" if name in LEFT_OUT else "real"
            if kind == "text decoder":
                processor = ""
            lines.append(f"| `{name}` | {kind} | {tested} | {processor} | {remark} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent.parent / "docs" / "families.md").write_text(table(), encoding="utf-8")
