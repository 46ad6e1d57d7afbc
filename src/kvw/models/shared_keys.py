"""Keys and values of beginnings that several rows have in common, handed to each of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer


def all_kept(cache: DynamicCache) -> bool:
    """Whether every layer of a cache keeps keys and values of all tokens, and nothing else."""
    return bool(cache.layers) and all(type(layer) is DynamicLayer for layer in cache.layers)


def behind(cache: DynamicCache, owners: Tensor) -> Cache:
    """What to give a forward over rows that go on after beginnings. It keeps nothing, so it serves many forwards.

    Args:
        cache: Filled by a forward over the beginnings; :func:`all_kept`. It stays as it is.
        owners: The beginning of each row: (rows,), int64.
    """
    return Cache(layers=[_Behind(layer, owners) for layer in cache.layers if isinstance(layer, DynamicLayer)])


class _Behind(DynamicLayer):
    """Puts the keys and values of beginnings before those of the rows, copied for the time of one layer."""

    def __init__(self, beginnings: DynamicLayer, owners: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values, self.is_initialized = beginnings.keys, beginnings.values, True
        self._owners = owners

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of beginnings and rows: (rows, heads, tokens of both, width of a head)."""
        return _before(self.keys, self._owners, key_states), _before(self.values, self._owners, value_states)


def _before(beginnings: Tensor | None, owners: Tensor, states: Tensor) -> Tensor:
    assert beginnings is not None
    return torch.cat([beginnings[owners.to(beginnings.device)], states], dim=-2)
