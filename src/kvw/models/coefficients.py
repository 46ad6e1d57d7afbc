"""Getting at the coefficients of live value matrices, whatever form the FFN has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kvw.errors import UserError
from kvw.models.experts import ExpertMatrix, ListedExpert, Routed, expert_matrices, tap_experts
from kvw.models.sharding import own_part
from kvw.models.value_matrix import MatrixKey, ValueMatrix


@dataclass(frozen=True)
class Seen:
    """The coefficients of one value matrix, or of all experts of a layer, in one forward.

    Args:
        matrices: The value matrix, or those of all the layer's experts in order.
        coefficients: What multiplies the knowledge vectors: (..., width); for experts (rows, width), expert by expert.
        tokens: Which token each row is of, as flat index into batch times length: (rows,), int64; None if rows are
            tokens.
        experts: Which of ``matrices`` each row belongs to: (rows,), int64, ascending; None if there is one matrix.
    """

    matrices: Sequence[ValueMatrix]
    coefficients: Tensor
    tokens: Tensor | None = None
    experts: Tensor | None = None


See = Callable[[Seen], Tensor | None]
"""Takes in coefficients; may return others, of the same shape and dtype, to be used instead."""


class Handle(Protocol):
    """What takes a hook off again."""

    def remove(self) -> None:
        """Once more does no harm."""


def intercept(matrices: Sequence[ValueMatrix], see: See, *, first: bool = False) -> list[Handle]:
    """Let a function see, and perhaps change, coefficients in every forward from now on.

    Args:
        matrices: Live value matrices. One expert brings all those of its layer along.
        see: Called once in every forward for each value matrix or layer of experts.
        first: Before what is there already: an attached edit scales coefficients after they were seen, not before.

    Returns:
        Handles, each with ``remove()``.
    """
    handles: list[Handle] = []
    groups: dict[int, list[ValueMatrix]] = {}
    for matrix in matrices:
        groups.setdefault(id(matrix.module), []).append(matrix)
    try:
        for group in groups.values():
            if isinstance(group[0], ExpertMatrix):
                handles.extend(_intercept_experts(group[0], see, first))
            elif isinstance(group[0], ListedExpert):
                handles.extend(_intercept_listed(group[0], see, first))
            else:
                handles.append(group[0].module.register_forward_pre_hook(_Hook(group, see), prepend=first))
    except BaseException:
        for handle in handles:
            handle.remove()
        raise
    return handles


@contextmanager
def intercepted(matrices: Sequence[ValueMatrix], see: See, *, first: bool = False) -> Iterator[None]:
    """:func:`intercept` for as long as the block runs."""
    handles = intercept(matrices, see, first=first)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Hook:
    def __init__(self, matrices: Sequence[ValueMatrix], see: See) -> None:
        self._matrices = matrices
        self._see = see

    def __call__(self, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        changed = self._see(Seen(self._matrices, inputs[0]))
        return None if changed is None else (changed, *inputs[1:])


class _Remembered:
    """Keeps what a module gets, as rows."""

    def __init__(self) -> None:
        self.rows: Tensor | None = None

    def __call__(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.rows = inputs[0].reshape(-1, inputs[0].shape[-1])


def _intercept_experts(expert: ExpertMatrix, see: See, first: bool) -> list[Handle]:
    group = expert_matrices(expert.key.layer, expert.name, expert.module, expert.block)
    everything = _Remembered()

    def tap(routed: Routed) -> Tensor | None:
        tokens = routed.tokens
        if everything.rows is not None and len(everything.rows) != len(routed.inputs):
            tokens = find_rows(routed.inputs, everything.rows)[tokens]
        return see(Seen(group, routed.coefficients, tokens, routed.experts))

    handles: list[Handle] = [tap_experts(expert.module, tap, first=first)]
    if expert.block is not None:
        handles.append(expert.block.register_forward_pre_hook(everything))
    return handles


def _intercept_listed(expert: ListedExpert, see: See, first: bool) -> list[Handle]:
    everything, mine = _Remembered(), _Remembered()

    def hook(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if everything.rows is None or mine.rows is None:
            return None
        changed = see(Seen([expert], inputs[0], find_rows(mine.rows, everything.rows)))
        return None if changed is None else (changed, *inputs[1:])

    hooked = ((expert.block, everything), (expert.up_projection, mine))
    handles: list[Handle] = [module.register_forward_pre_hook(hook) for module, hook in hooked if module is not None]
    handles.append(expert.module.register_forward_pre_hook(hook, prepend=first))
    return handles


def find_rows(rows: Tensor, among: Tensor) -> Tensor:
    """Where rows lie in a longer list that they were taken from, in order.

    Equal rows are told apart by their order: the second of two equal rows is the second of its kind in the list.

    Args:
        rows: (n, hidden).
        among: (m, hidden), m >= n.

    Returns:
        Index of each row: (n,), int64.

    Raises:
        UserError: A row is not in the list.
    """
    known, wanted = _row_hashes(among), _row_hashes(rows)
    order = known.argsort(stable=True)
    ascending = known[order]
    wanted_order = wanted.argsort(stable=True)
    wanted_ascending = wanted[wanted_order]
    rank = torch.arange(len(wanted), device=wanted.device) - torch.searchsorted(wanted_ascending, wanted_ascending)
    place = torch.searchsorted(ascending, wanted_ascending) + rank
    place = place.clamp(max=len(known) - 1)
    if not torch.equal(ascending[place], wanted_ascending):
        raise UserError(
            "The experts of this model see tokens that their layer has not seen.",
            do="report the model's name and the version of transformers",
        )
    places = torch.empty_like(wanted_order)
    places[wanted_order] = order[place]
    return places


def _row_hashes(rows: Tensor) -> Tensor:
    """64 bits for each row; equal rows have equal bits, others differ (up to chances of 2^-64)."""
    bits = rows.float().contiguous().view(torch.int32).long()
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (bits.shape[1],), generator=generator).to(bits.device) * 2 + 1
    return (bits * factors).sum(1)


def scale_coefficients(seen: Seen, gates: Mapping[MatrixKey, Tensor]) -> Tensor | None:
    """Multiply coefficients by gates, in float32 or better and rounded once.

    Args:
        seen: What to multiply.
        gates: Factors (width,), float32, on the device of their layer; a value matrix without gates stays as it is.

    Returns:
        The products in the dtype of the coefficients; None if there are no gates for these matrices.
    """
    own = {index: gates[matrix.key] for index, matrix in enumerate(seen.matrices) if matrix.key in gates}
    if not own:
        return None
    # A gate rounded to bfloat16 first would lose every gate above 1 - 2^-9.
    exact = seen.coefficients.to(torch.promote_types(seen.coefficients.dtype, torch.float32))
    if seen.experts is None:
        gate = own_part(own[0], seen.matrices[0].module)
        return (exact * gate.to(exact.dtype)).to(seen.coefficients.dtype)
    table = exact.new_ones(len(seen.matrices), exact.shape[-1])
    for index, gate in own.items():
        table[index] = gate
    return (exact * table[seen.experts]).to(seen.coefficients.dtype)
