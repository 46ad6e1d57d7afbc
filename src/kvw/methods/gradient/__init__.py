"""Unlearning by gradients: the baselines that KVW is compared with, one file each, over one training loop.

Names are resolved when they are used, so that settings can be checked without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvw.methods.gradient.unlearning import unlearn

__all__ = ["unlearn"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.unlearning"), name)
