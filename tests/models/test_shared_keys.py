"""Keys and values of a beginning that several rows share."""

from __future__ import annotations

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from kvw.models.shared_keys import all_kept, behind


def test_every_row_gets_the_keys_of_its_beginning_and_the_cache_stays_as_it_is() -> None:
    cache, owners = DynamicCache(), torch.tensor([1, 0, 1])
    beginnings = torch.randn(2, 4, 3, 8)
    cache.update(beginnings, 2 * beginnings, 0)
    for _ in range(2):  # it keeps nothing of a forward
        given = behind(cache, owners)
        rows = torch.randn(3, 4, 5, 8)
        keys, values = given.update(rows, -rows, 0)
        assert torch.equal(keys, torch.cat([beginnings[owners], rows], dim=2))
        assert torch.equal(values, torch.cat([2 * beginnings[owners], -rows], dim=2))
    assert torch.equal(cache.layers[0].keys, beginnings)


def test_a_cache_that_lets_go_of_tokens_cannot_be_shared() -> None:
    full, sliding, empty = DynamicCache(), DynamicCache(), DynamicCache()
    states = torch.randn(1, 1, 2, 4)
    full.update(states, states, 0)
    sliding.layers = [DynamicSlidingWindowLayer(sliding_window=2)]
    assert all_kept(full)
    assert not all_kept(sliding)
    assert not all_kept(empty)
