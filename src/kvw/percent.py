"""How a share is written that somebody asked for."""

from __future__ import annotations


def percent(share: float) -> str:
    """A share in percent, with every digit that was given: 0.985 is 98.5%, and never 98%."""
    return f"{share * 100:.10g}%"
