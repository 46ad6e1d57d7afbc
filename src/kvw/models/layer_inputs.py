"""Getting at what enters the layers of the language decoder, whatever their signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.models.coefficients import Handle
from kvw.models.finding import find_layers

See = Callable[[Tensor], Tensor | None]
"""Takes in the states that enter a layer: (rows, tokens, hidden), before its norm; may return others to be used
instead, of the same shape and dtype."""

USUAL_NAME = "hidden_states"


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of the language decoder, in order.

    Raises:
        UserError: The family is not known.
    """
    return list(model.get_submodule(find_layers(model)).children())


def on_input(layer: nn.Module, number: int, see: See) -> Handle:
    """Let a function see, and perhaps change, what enters a decoder layer in every forward from now on.

    Args:
        layer: From :func:`decoder_layers`.
        number: Which one it is, for messages.
        see: Called once in every forward.

    Returns:
        A handle with ``remove()``.
    """
    return InputHook(layer, number, see).put_on()


class StatesArgument:
    """Where, among the arguments of a decoder layer, the states are.

    Args:
        layer: From :func:`decoder_layers`.
        number: Which one it is, for messages.
    """

    def __init__(self, layer: nn.Module, number: int) -> None:
        names = list(inspect.signature(layer.forward).parameters)
        self._place = names.index(USUAL_NAME) if USUAL_NAME in names else 0
        self._name = names[self._place]
        self._layer = type(layer).__name__
        self._number = number

    def find(self, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
        """The states: (rows, tokens, hidden).

        Raises:
            UserError: There is something else in their place.
        """
        states = inputs[self._place] if len(inputs) > self._place else named.get(self._name)
        if not isinstance(states, Tensor) or states.ndim != 3 or not states.is_floating_point():
            raise UserError(
                f"Layer {self._number} of the decoder is not given hidden states of the shape (rows, tokens, hidden).",
                found=f"{self._layer} gets {_described(states)} as {self._name}",
                do="leave the layer out, or report the model's name and the version of transformers",
            )
        return states

    def replaced(
        self, inputs: tuple[Any, ...], named: Mapping[str, Any], states: Tensor | None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same arguments with other states, or with None in their place."""
        if len(inputs) > self._place:
            return (*inputs[: self._place], states, *inputs[self._place + 1 :]), dict(named)
        return inputs, {**named, self._name: states}


class InputHook:
    """What :func:`on_input` puts on a layer, for those who take it off and put it on again.

    Args:
        layer, number, see: See :func:`on_input`.
    """

    def __init__(self, layer: nn.Module, number: int, see: See) -> None:
        self.layer = layer
        self._argument = StatesArgument(layer, number)
        self._see = see

    def put_on(self, *, first: bool = False) -> Handle:
        """Begin to see what enters the layer; ``first`` before other hooks do."""
        return self.layer.register_forward_pre_hook(self, with_kwargs=True, prepend=first)

    def __call__(
        self, _: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Find the states among the arguments, and put others in their place."""
        changed = self._see(self._argument.find(inputs, named))
        return None if changed is None else self._argument.replaced(inputs, named, changed)


def _described(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def at_columns(states: Tensor, columns: Tensor) -> Tensor:
    """One state of each row.

    Args:
        states: (rows, tokens, hidden).
        columns: Which token of each row: (rows,), int64, on the same device.

    Returns:
        (rows, hidden).
    """
    return states[torch.arange(len(states), device=states.device), columns]
