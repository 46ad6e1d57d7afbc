"""Models that must be given whole prompts, since what an attached edit does depends on where prompts end."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

OBSERVERS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
"""What watches the prompts of a model while such an edit is attached to it: a :class:`kvw.edits.prompts.Prompts`."""


ACCOMPANIED: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
"""How many small models run beside a model, each of which must see all of the prompt."""


class Accompanied:
    """Says that a small model runs beside a model, until it is removed."""

    def __init__(self, model: nn.Module) -> None:
        self._model: nn.Module | None = model
        ACCOMPANIED[model] = ACCOMPANIED.get(model, 0) + 1

    def remove(self) -> None:
        """Once more does no harm."""
        if self._model is not None:
            ACCOMPANIED[self._model] -= 1
            self._model = None


def needs_whole_prompts(model: nn.Module) -> bool:
    """Whether an edit is attached that looks for the end of the prompt, or a model that must see all of it."""
    return model in OBSERVERS or bool(ACCOMPANIED.get(model))
