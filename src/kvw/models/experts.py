"""Mixtures of experts: the value matrices of all experts of a layer in one parameter, and a way to see and scale what
they multiply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import has_offloaded_params
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers.models.llama4.modeling_llama4 import Llama4TextExperts

from kvw.errors import UserError
from kvw.models.value_matrix import MatrixKey, ValueMatrix, read_parameter, write_parameter

DOWN = "down_proj"


@dataclass(frozen=True)
class ExpertMatrix(ValueMatrix):
    """The value matrix of one expert: a slice of its layer's ``down_proj``.

    The parameter has shape (experts, hidden, width), or (experts, width, hidden) where transformers keeps it
    transposed (Llama 4, gpt-oss, Aria).
    """

    block: nn.Module | None = None
    """The part of the layer that hands only some of its tokens to these experts; None if they get all of them."""

    @property
    def expert(self) -> int:
        """Which slice."""
        return 0 if self.key.expert is None else self.key.expert

    @property
    def width(self) -> int:
        """Number of knowledge vectors of this expert."""
        return experts_shape(self.module)[1]

    @property
    def hidden(self) -> int:
        """Length of a knowledge vector."""
        return experts_shape(self.module)[2]

    @property
    def parameter(self) -> str:
        """Dotted name of the parameter that holds the matrices of all experts of the layer."""
        return f"{self.name}.{DOWN}"

    @property
    def vectors_first(self) -> bool:
        """Whether the slice has shape (width, hidden)."""
        return is_transposed(self.module)

    def read(self) -> Tensor:
        """The slice of this expert."""
        return read_parameter(self.module, DOWN)[self.expert]

    def write(self, weight: Tensor) -> None:
        """Give the slice other values."""
        values = read_parameter(self.module, DOWN)
        with torch.no_grad():
            values[self.expert].copy_(weight)
        if has_offloaded_params(self.module):  # what was changed may be a copy from the disk
            write_parameter(self.module, DOWN, values)


@dataclass(frozen=True)
class ListedExpert(ValueMatrix):
    """The value matrix of an expert that is a module of its own, in a list."""

    up_projection: nn.Module | None = None
    """The up projection of this expert; it gets the tokens that were routed to it."""
    block: nn.Module | None = None
    """The part of the layer that gets all tokens and routes them."""


@dataclass(frozen=True)
class Routed:
    """What the experts of a layer multiply their knowledge vectors with, one row for each token and expert.

    Args:
        coefficients: (rows, width), in the model's dtype.
        experts: Which expert each row is of: (rows,), int64.
        tokens: Which token each row is of, as flat index into what the experts got: (rows,), int64.
        inputs: What the experts got: (tokens, hidden); of Llama 4, which scales it, what the first expert got.
    """

    coefficients: Tensor
    experts: Tensor
    tokens: Tensor
    inputs: Tensor


Tap = Callable[[Routed], Tensor | None]
"""Sees the coefficients of a layer's experts; may return others to be used instead."""


def expert_matrices(layer: int, name: str, module: nn.Module, block: nn.Module | None = None) -> list[ExpertMatrix]:
    """The value matrices of all experts of a layer.

    Args:
        layer: 0-based decoder layer.
        name: Dotted name of the experts module.
        module: Holds the parameters of all experts.
        block: See :class:`ExpertMatrix`.

    Raises:
        UserError: It is not built as transformers builds experts.
    """
    count = experts_shape(module)[0]
    return [ExpertMatrix(MatrixKey(layer, index), name, module, block) for index in range(count)]


def experts_shape(module: nn.Module) -> tuple[int, int, int]:
    """(experts, width, hidden).

    Raises:
        UserError: The module is not built as transformers builds experts.
    """
    down = getattr(module, DOWN, None)
    known = isinstance(module, Llama4TextExperts) or hasattr(module, "is_transposed")
    if not known or not isinstance(down, nn.Parameter) or down.ndim != 3:
        raise UserError(
            f"{type(module).__name__} is not a known form of experts.",
            found=f"{DOWN}: {tuple(down.shape) if isinstance(down, Tensor) else type(down).__name__}",
            do="leave these layers out with --layers, or report the model's name",
        )
    count, first, second = down.shape
    return (count, first, second) if is_transposed(module) else (count, second, first)


def is_transposed(module: nn.Module) -> bool:
    """Whether the parameters lie as (experts, in, out)."""
    return isinstance(module, Llama4TextExperts) or bool(module.is_transposed)


class TapHandle:
    """Takes a tap off again."""

    def __init__(self, forward: _TappedForward, tap: Tap) -> None:
        self._forward = forward
        self._tap = tap

    def remove(self) -> None:
        """Once more does no harm."""
        self._forward.remove(self._tap)


def tap_experts(module: nn.Module, tap: Tap, *, first: bool = False) -> TapHandle:
    """Let a function see, and perhaps change, the coefficients of a layer's experts in every forward from now on.

    Experts in one parameter are not modules, so no hook sees them. The module's forward is exchanged for one that
    computes the same, expert by expert, and shows the coefficients; the first time it is compared with the original.

    Args:
        module: Holds the parameters of all experts of the layer.
        tap: Called in every forward.
        first: Before the taps that are there already, as hooks that are prepended.

    Raises:
        UserError: The experts are split over several processes.
    """
    if any(isinstance(parameter, DTensor) for parameter in module.parameters()):
        raise _split(module)
    slot = _slot(module)
    forward = getattr(module, slot)
    if not isinstance(forward, _TappedForward):
        forward = _TappedForward(module, forward)
        setattr(module, slot, forward)
    forward.taps.insert(0 if first else len(forward.taps), tap)
    return TapHandle(forward, tap)


def _split(module: nn.Module) -> UserError:
    return UserError(
        f"{type(module).__name__}: experts that are split over several processes cannot be measured or weakened.",
        do="load the model without tp_plan or expert parallelism; device_map='auto' spreads it over accelerators",
    )


def _slot(module: nn.Module) -> str:
    # accelerate wraps the forward of a module whose weights it moves, and keeps the original under this name.
    return "_old_forward" if hasattr(module, "_hf_hook") else "forward"


class _TappedForward:
    """The forward of an experts module with its coefficients laid open."""

    def __init__(self, module: nn.Module, original: Callable[..., Tensor]) -> None:
        self._module = module
        self._original = original
        self._proven = False
        self.taps: list[Tap] = []

    def __call__(self, *inputs: Tensor) -> Tensor:
        compute = _llama4 if isinstance(self._module, Llama4TextExperts) else _routed
        if not self._proven:
            self._prove(compute, inputs)
        return compute(self._module, self._show, *inputs)

    def remove(self, tap: Tap) -> None:
        if tap in self.taps:
            self.taps.remove(tap)
        slot = _slot(self._module)
        if not self.taps and getattr(self._module, slot) is self:
            if slot == "forward":
                del self._module.forward
            else:
                self._module._old_forward = self._original

    def _show(self, routed: Routed) -> Tensor:
        for tap in self.taps:
            changed = tap(routed)
            if changed is not None:
                routed = Routed(changed, routed.experts, routed.tokens, routed.inputs)
        return routed.coefficients

    def _prove(self, compute: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
        """Compare with the original on the batch at hand, so that no unknown variant is computed wrongly."""
        expected = self._original(*inputs)
        computed = compute(self._module, lambda routed: routed.coefficients, *inputs)
        if not expected.numel():
            return
        if not _alike(computed.flatten(0, -2).double(), expected.flatten(0, -2).double(), expected.dtype):
            raise UserError(
                f"{type(self._module).__name__} computes something else than kvw expects of experts.",
                found=f"outputs differ by {float((computed - expected).abs().max()):.1e}",
                do="report the model's name and the version of transformers",
            )
        self._proven = True


def _alike(found: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether outputs (tokens, hidden) differ by rounding; by column, since a few may be far larger than others."""
    tolerance = max(16 * torch.finfo(dtype).eps, 1e-4)
    sizes = expected.norm(dim=0)
    return bool(((found - expected).norm(dim=0) <= tolerance * (sizes + 0.1 * sizes.median())).all())


def _routed(module: Any, show: Callable[[Routed], Tensor], inputs: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """The experts of everyone but Llama 4.

    Args:
        module: Its layout is described by the attributes that transformers' ``use_experts_implementation`` sets; an
            older release lacks those for what it cannot do.
        show: Gets the coefficients and returns those to be used.
        inputs: (tokens, hidden).
        index: Experts of each token: (tokens, experts per token), int64.
        weights: Weight of each of them: (tokens, experts per token).

    Returns:
        (tokens, hidden).
    """
    per_token = index.shape[1]
    experts, order = index.reshape(-1).sort(stable=True)
    tokens = order // per_token
    count = experts_shape(module)[0]
    ends = torch.bincount(experts, minlength=count).cumsum(0).tolist()
    # Experts of other devices have numbers behind those that are here.
    if len(ends) > count or getattr(module, "_is_expert_parallel", False):
        raise _split(module)
    up_name = "gate_up_proj" if module.has_gate else "up_proj"
    up = _each(module, up_name, inputs[tokens], experts, ends)
    coefficients = module._apply_gate(up) if module.has_gate else module.act_fn(up)
    coefficients = show(Routed(coefficients, experts, tokens, inputs))
    outputs = _each(module, DOWN, coefficients, experts, ends)
    if getattr(module, "has_post_expert_norm", False):
        outputs = module.post_expert_norm(outputs)
    weighted = torch.empty_like(outputs)
    weighted[order] = outputs * weights.reshape(-1)[order][:, None]
    return weighted.view(len(inputs), per_token, -1).sum(dim=1).to(inputs.dtype)


def _each(module: Any, name: str, rows: Tensor, experts: Tensor, ends: list[int]) -> Tensor:
    """Multiply each expert's rows, which lie together, with its own matrix."""
    matrices, start, parts = getattr(module, name), 0, []
    for matrix, end in zip(matrices, ends, strict=True):
        if end > start:
            parts.append(rows[start:end] @ (matrix if module.is_transposed else matrix.T))
        start = end
    results = torch.cat(parts) if parts else rows.new_empty(0, matrices.shape[1])
    return results + getattr(module, f"{name}_bias")[experts] if module.has_bias else results


def _llama4(module: Any, show: Callable[[Routed], Tensor], inputs: Tensor) -> Tensor:
    """The experts of Llama 4, which see every token times its weight: zero if it was not routed to them.

    Args:
        module: The experts.
        show: Gets the coefficients of routed tokens and returns those to be used.
        inputs: (experts * tokens, hidden).

    Returns:
        (experts * tokens, hidden).
    """
    count, _, hidden = experts_shape(module)
    by_expert = inputs.view(count, -1, hidden)
    gate, up = torch.bmm(by_expert, module.gate_up_proj).chunk(2, dim=-1)
    coefficients = (up * module.act_fn(gate)).reshape(len(inputs), -1)
    rows = inputs.any(dim=1).nonzero()[:, 0]
    tokens = by_expert.shape[1]
    shown = show(Routed(coefficients[rows], rows // tokens, rows % tokens, by_expert[0]))
    coefficients[rows] = shown
    return torch.bmm(coefficients.view(count, tokens, -1), module.down_proj).view(-1, hidden)
