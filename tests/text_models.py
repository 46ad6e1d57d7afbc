"""Tiny random text models of the real classes with tokenizers trained on the spot, as checkpoint folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tests.tiny_models import train_tokenizer
from transformers import GPT2Config, LlamaConfig, MistralConfig, OPTConfig, Qwen2Config, Qwen3Config
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

SIZES = {"max_position_embeddings": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
THINKING_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
"""As Qwen3 has it: what is thought stands before the answer, and may be switched off."""


def build(kind: str) -> tuple[Any, Any]:
    """A random model in float32, the same at every call, and its tokenizer.

    Args:
        kind: ``llama`` (chat template that adds the begin token, hidden size 64 for every quantisation), ``qwen3``
            (thinking template), ``opt`` (no template, the tokenizer adds a begin token) or ``gpt2`` (no template, no
            padding token, Conv1D); also ``mistral`` (no window) and ``qwen2``, without a template.
    """
    if kind == "qwen3":
        tokenizer = train_tokenizer(
            ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>", pad_token="<|endoftext|>"
        )
    elif kind == "gpt2":
        tokenizer = train_tokenizer(["<|endoftext|>"], eos_token="<|endoftext|>")
    else:
        tokenizer = train_tokenizer(["<pad>", "<s>", "</s>"], bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = {"llama": LLAMA_TEMPLATE, "qwen3": THINKING_TEMPLATE}.get(kind)
    common = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    grouped = {"num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 128, "hidden_size": 64}
    config: Any = {
        "llama": lambda: LlamaConfig(**common, **SIZES, **grouped, initializer_range=0.2),
        "mistral": lambda: MistralConfig(**common, **SIZES, **grouped, initializer_range=0.2, sliding_window=None),
        "qwen2": lambda: Qwen2Config(**common, **SIZES, **grouped, initializer_range=0.2),
        "qwen3": lambda: Qwen3Config(**common, **SIZES, **grouped, initializer_range=0.2),
        "opt": lambda: OPTConfig(**common, **SIZES, hidden_size=32, ffn_dim=64, word_embed_proj_dim=32, init_std=0.2),
        "gpt2": lambda: GPT2Config(**common, n_positions=512, n_embd=32, n_layer=4, n_head=4, initializer_range=0.2),
    }[kind]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).float().eval()
    return model, tokenizer


def save(kind: str, folder: Path) -> Path:
    """Write the model and the tokenizer as an ordinary checkpoint folder and return the folder."""
    for part in build(kind):
        part.save_pretrained(folder)
    return folder


KINDS = ("llama", "qwen3", "opt", "gpt2")
