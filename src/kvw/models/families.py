"""Where the value matrices of each model family live: data; :mod:`kvw.models.finding` proves it on the live module."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Vision-language model classes that keep their text decoder at one place."""

    decoder: str
    """Dotted path from the model to its text decoder, or to the causal language model that holds it."""
    model_types: tuple[str, ...]
    """``config.model_type`` of the whole model."""
    causal: bool = False
    """Whether ``decoder`` leads to a whole causal language model."""


@dataclass(frozen=True)
class Decoder:
    """Text decoders that are built alike: where the layers are and, in each, the FFN and the attention."""

    model_types: tuple[str, ...]
    """``model_type`` of the text configuration."""
    layers: str = "layers"
    """From the decoder to its list of layers."""
    value: str = "mlp.down_proj"
    """From a layer to its value projection."""
    up_projection: str = "mlp.up_proj"
    """From a layer to the up projection of its FFN, as wide as the FFN (twice, if fused with the gate projection)."""
    causal: str = "model"
    """From a causal language model of its own to the decoder."""
    experts: str = ""
    """From a layer to its experts. A layer may have them instead of the dense FFN, or beside it."""
    shared: str = ""
    """From a layer to an FFN that all tokens pass beside the experts; it is built like the dense one."""
    router: str = ""
    """From a layer to the router that hands only some of its tokens to ``experts`` (text but not images)."""
    attention: tuple[str, ...] = ("self_attn.o_proj",)
    """From a layer to the output projection of its attention, or of what it has in place of it: the first of these
    that the layer has. Layers without any are not an error."""


def names(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


FAMILIES = (
    Family(
        "model.language_model",
        names(
            "aria aya_vision cohere2_vision deepseek_vl deepseek_vl_hybrid ernie4_5_vl_moe exaone4_5 fast_vlm "
            "florence2 gemma3 gemma3n gemma4 glm46v glm4v glm4v_moe glm_ocr internvl janus kimi_k25 lfm2_vl "
            "lighton_ocr llava llava_next llava_next_video llava_onevision minicpmv4_6 minicpmv4_7 mistral3 "
            "mllama molmo2 ovis2 paligemma qwen2_5_vl qwen2_vl qwen3_5 qwen3_5_moe qwen3_vl qwen3_vl_moe "
            "video_llava vipllava"
        ),
    ),
    Family("model.text_model", ("idefics2", "idefics3", "smolvlm")),
    Family("language_model", ("blip-2", "instructblip"), causal=True),
    Family("language_model.model", ("llama4",)),
)
DECODERS = (
    Decoder(
        names(
            "cohere cohere2 gemma gemma2 gemma3_text gemma3n_text exaone4 llama ministral3 mistral molmo2_text "
            "olmo2 qwen2 qwen2_5_vl_text qwen2_vl_text qwen3 qwen3_vl_text"
        ),
    ),
    Decoder(("mllama_text_model",), attention=("self_attn.o_proj", "cross_attn.o_proj")),
    Decoder(("qwen3_5_text",), attention=("self_attn.o_proj", "linear_attn.out_proj")),
    Decoder(("glm4", "glm4v_text", "glm_ocr_text", "phi3", "phi4_multimodal"), up_projection="mlp.gate_up_proj"),
    Decoder(("gemma4_text",), experts="experts"),
    Decoder(
        names(
            "dots1 ernie4_5_moe glm4_moe gpt_oss mixtral olmoe phimoe qwen3_moe qwen3_vl_moe_text deepseek_v2 "
            "deepseek_v3 glm4v_moe_text aria_text"
        ),
        experts="mlp.experts",
        shared="mlp.shared_experts",
    ),
    Decoder(("minimax",), experts="mlp.experts", attention=("self_attn.o_proj", "self_attn.out_proj")),
    Decoder(("hunyuan_v1_moe",), experts="mlp.experts", shared="mlp.shared_mlp"),
    Decoder(
        ("qwen2_moe", "qwen3_next", "qwen3_5_moe_text"),
        experts="mlp.experts",
        shared="mlp.shared_expert",
        attention=("self_attn.o_proj", "linear_attn.out_proj"),
    ),
    Decoder(
        ("llama4_text",),
        value="feed_forward.down_proj",
        up_projection="feed_forward.up_proj",
        experts="feed_forward.experts",
        shared="feed_forward.shared_expert",
    ),
    Decoder(("ernie4_5_vl_moe_text",), experts="mlp.text_moe.experts", shared="mlp.shared_experts", router="mlp"),
    Decoder(
        ("lfm2_moe",),
        value="feed_forward.w2",
        up_projection="feed_forward.w3",
        experts="feed_forward.experts",
        attention=("self_attn.out_proj", "conv.out_proj"),
    ),
    Decoder(("granitemoe",), experts="block_sparse_moe.experts"),
    Decoder(
        ("lfm2",),
        value="feed_forward.w2",
        up_projection="feed_forward.w3",
        attention=("self_attn.out_proj", "conv.out_proj"),
    ),
    Decoder(("phi",), value="mlp.fc2", up_projection="mlp.fc1", attention=("self_attn.dense",)),
    Decoder(
        ("gpt_neox",),
        value="mlp.dense_4h_to_h",
        up_projection="mlp.dense_h_to_4h",
        causal="gpt_neox",
        attention=("attention.dense",),
    ),
    Decoder(
        ("bloom", "falcon"),
        "h",
        "mlp.dense_4h_to_h",
        "mlp.dense_h_to_4h",
        causal="transformer",
        attention=("self_attention.dense",),
    ),
    Decoder(("gpt2",), "h", "mlp.c_proj", "mlp.c_fc", causal="transformer", attention=("attn.c_proj",)),
    Decoder(("opt",), value="fc2", up_projection="fc1", causal="model.decoder", attention=("self_attn.out_proj",)),
    Decoder(("bart",), "decoder.layers", "fc2", "fc1", attention=("self_attn.out_proj",)),
    Decoder(
        ("t5",),
        "decoder.block",
        "layer.2.DenseReluDense.wo",
        "layer.2.DenseReluDense.wi",
        causal="",
        attention=("layer.0.SelfAttention.o",),
    ),
)
