"""What a dry run times, and how much memory a plan adds up to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kvw.methods.plan import MemoryPlan, largest_batch


def item(length: int, images: int = 0) -> Any:
    return SimpleNamespace(length=length, image_count=images)


def test_the_largest_batch_is_of_the_longest_examples_with_as_many_images() -> None:
    items = [item(10), item(40, 1), item(30, 1), item(20, 1), item(39)]
    assert [one.length for one in largest_batch(items, 100)] == [40, 30]
    assert [one.length for one in largest_batch(items, 120)] == [40, 30, 20]
    assert [one.length for one in largest_batch(items, 1)] == [40]


def test_what_waits_and_what_is_solved_with_adds_up() -> None:
    numbers = {name: 2**place for place, name in enumerate(MemoryPlan.model_fields) if name != "path"}
    plan = MemoryPlan(path="layer by layer", **numbers)
    parts = ("states", "arguments", "moments", "forget_tokens", "null_tokens", "largest_solve")
    assert plan.largest == sum(numbers[name] for name in parts)
