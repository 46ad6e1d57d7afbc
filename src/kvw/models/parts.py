"""Which value matrices of a decoder are meant; settings name it before anything heavy is loaded."""

from __future__ import annotations

from typing import Literal

Part = Literal["ffn", "attention", "both"]
"""Which value matrices: those of the FFNs, the output projections of attention, or both."""
