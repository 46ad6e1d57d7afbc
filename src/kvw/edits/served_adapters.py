"""LoRA adapters as vLLM and SGLang load them: one rank for all matrices, alpha equal to it, bfloat16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from kvw.errors import UserError

Engine = Literal["vllm", "sglang"]
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What ``--max-lora-rank`` of vLLM can be. SGLang takes these too, and wants one rank for all matrices."""

Factors = Mapping[str, tuple[Tensor, Tensor]]


def served(factors: Factors) -> tuple[int, dict[str, tuple[Tensor, Tensor]]]:
    """Bring the factors of an adapter into the form that engines load.

    They multiply B A by the one alpha / r of the configuration, and copy A and B into buffers of one rank. So all are
    filled up with zeros to the smallest rank that holds them. The two factors of a direction get the same length, so
    that none is lost when they are rounded.

    Args:
        factors: A (rank, width) and B (hidden, rank), float32, by module name.

    Returns:
        The rank, and the factors of that rank in bfloat16.

    Raises:
        UserError: A matrix needs more directions than any engine has room for.
    """
    largest = max(len(a) for a, _ in factors.values())
    rank = next((rank for rank in RANKS if rank >= largest), None)
    if rank is None:
        raise UserError(
            "The edit is too wide for an adapter that an engine serves.",
            found=f"{largest:,} directions or scaled vectors in one matrix; at most {RANKS[-1]}",
            do="write it into the checkpoint (kvw apply) and serve that, or serve the edit with kvw serve",
        )
    return rank, {name: _fit(*pair, rank) for name, pair in factors.items()}


def _fit(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    a, b = a.double(), b.double()
    rows, columns = a.norm(dim=1), b.norm(dim=0)
    balance = torch.where((rows > 0) & (columns > 0), (columns / rows).sqrt(), torch.ones_like(rows))
    room = rank - len(a)
    a, b = pad(a * balance[:, None], (0, 0, 0, room)), pad(b / balance, (0, room))
    return a.bfloat16().contiguous(), b.bfloat16().contiguous()
