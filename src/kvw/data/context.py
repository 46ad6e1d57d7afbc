"""How many tokens a model reads at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

STRETCHED = ("linear", "dynamic", "yarn", "ntk")
"""Rotary positions that reach further than the configuration's table, by a factor. Those of other kinds (llama3,
longrope) already state the stretched length."""


def context_length(config: Any) -> int | None:
    """The most tokens, image tokens included, that a model takes in one sequence; None if it has no such limit.

    Learned positions end there; rotary ones go on, into what the model was never trained for. Sliding windows are no
    limit: they bound what a token looks at and not how many there are. Models without positions (ALiBi, state spaces)
    have none.

    Args:
        config: A Hugging Face configuration; of a vision-language model that of its text decoder counts.
    """
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    stated = getattr(text, "max_position_embeddings", None)
    if getattr(text, "alibi", False) or not isinstance(stated, int) or isinstance(stated, bool) or stated < 1:
        return None
    return max([stated, *(_stretched(stated, rope) for rope in _ropes(text))])


def _ropes(text: Any) -> Iterator[Mapping[str, Any]]:
    """The settings of rotary positions: one, or one for each kind of layer."""
    for name in ("rope_parameters", "rope_scaling"):
        found = getattr(text, name, None)
        if isinstance(found, Mapping):
            yield found
            yield from (entry for entry in found.values() if isinstance(entry, Mapping))


def _stretched(stated: int, rope: Mapping[str, Any]) -> int:
    factor = rope.get("factor")
    if rope.get("rope_type", rope.get("type")) not in STRETCHED or not isinstance(factor, int | float):
        return stated
    original = rope.get("original_max_position_embeddings")
    return int((original if isinstance(original, int) else stated) * factor)
