"""Models that must be given whole prompts, since what an attached edit does depends on where prompts end."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

OBSERVERS: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()
"""What watches the prompts of a model while such an edit is attached to it: a :class:`kvw.edits.prompts.Prompts`."""


def needs_whole_prompts(model: nn.Module) -> bool:
    """Whether an edit is attached that looks for the end of the prompt."""
    return model in OBSERVERS
