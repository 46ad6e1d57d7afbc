"""What in an unknown model looks like a value projection, for messages and ``kvw inspect``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from kvw.models.value_matrix import linear_shape


@dataclass(frozen=True)
class Candidate:
    """Linear maps that sit at the same place in numbered blocks and narrow their input."""

    template: str
    """Module name with ``*`` for the number of the block or layer."""
    count: int
    width: int
    hidden: int

    def __str__(self) -> str:
        return f"{self.count} x {self.template} ({self.width} -> {self.hidden})"


def find_candidates(model: nn.Module) -> list[Candidate]:
    """List every group of linear maps from a wider to a narrower space that repeats over numbered blocks."""
    groups: dict[tuple[str, int, int], int] = {}
    for name, module in model.named_modules():
        shape = linear_shape(module)
        if shape and shape[0] > shape[1]:
            template = re.sub(r"\.\d+\.", ".*.", name)
            if "*" in template:
                key = (template, *shape)
                groups[key] = groups.get(key, 0) + 1
    return [Candidate(template, count, width, hidden) for (template, width, hidden), count in groups.items()]


def describe_candidates(model: nn.Module) -> str:
    """One line that lists the candidates."""
    candidates = find_candidates(model)
    return "; ".join(map(str, candidates)) if candidates else "no repeated linear map that narrows its input"
