"""What a model calls its decoder layers with, learnt without running them.

Attention masks, position embeddings and the like do not depend on what layers compute, so a forward in which every
layer hands on the states that it gets shows all of them, for the price of the image tower and the embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.measuring.engine import Batch, run_model
from kvw.measuring.recorder import StopForward
from kvw.models.coefficients import Handle
from kvw.models.layer_inputs import StatesArgument

PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device, torch.Size)
"""What a layer may be given beside tensors and tuples of all of these: values that no layer can write into."""


class NotWalkable(UserError):
    """The layers of a model cannot be run one by one on their own.

    Args:
        found: Why not.
    """

    def __init__(self, found: str) -> None:
        super().__init__(
            "The decoder layers of this model cannot be measured one by one.",
            found=found,
            do="use path 'whole model', with layers_per_pass if memory is short",
        )


def entering_states(argument: StatesArgument, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Tensor:
    """The states that a layer is called with.

    Raises:
        NotWalkable: They are not of the usual shape.
    """
    try:
        return argument.find(inputs, named)
    except UserError as error:
        raise NotWalkable(error.found) from error


@dataclass(frozen=True)
class Call:
    """How one layer is called on one batch.

    Args:
        inputs: Arguments by place, None in place of the states; tensors on the CPU.
        named: Arguments by name, likewise.
    """

    inputs: tuple[Any, ...]
    named: dict[str, Any]

    def run(self, layer: nn.Module, argument: StatesArgument, states: Tensor, device: torch.device) -> Tensor:
        """Call the layer, its hooks included.

        Args:
            layer: The layer.
            argument: Where its states are.
            states: (rows, tokens, hidden), anywhere.
            device: Where the layer computes.

        Returns:
            The states that leave it: (rows, tokens, hidden).
        """
        inputs, named = argument.replaced(self.inputs, self.named, states)
        output = layer(*send_to_device(inputs, device), **send_to_device(named, device))
        found: Tensor = output if isinstance(output, Tensor) else output[0]
        return found


@dataclass
class Entered:
    """A batch that has come as far as some layer.

    Args:
        states: What enters that layer: (rows, tokens, hidden), in the model's dtype, on the CPU.
        calls: How the layers from the first to the last measured one are called, by their number. A layer that the
            batch does not pass has none.
    """

    states: Tensor
    calls: dict[int, Call]

    def tensors(self) -> Iterator[Tensor]:
        """Everything that is held beside the states; a tensor that several layers are given comes once."""
        seen: dict[int, Tensor] = {}
        for call in self.calls.values():
            _collect((*call.inputs, *call.named.values()), seen)
        yield from seen.values()


def enter(model: PreTrainedModel, layers: Mapping[int, nn.Module], forms: Mapping[int, int], batch: Batch) -> Entered:
    """Run a batch up to the first of some layers, and learn how they are called.

    Call it under :func:`~kvw.measuring.engine.evaluating`.

    Args:
        model: The model.
        layers: A range of its decoder layers by their number, ascending; those before it run, those in it do not.
        forms: What each returns: 0 for a tensor, else the length of a tuple that begins with one.
        batch: See :data:`~kvw.measuring.engine.Batch`; labels are left out.

    Raises:
        NotWalkable: The model does something to the states between two layers, calls a layer more than once, or gives
            it states of an unusual shape, or things in which layers can leave something for one another.
    """
    listener = _Listener(layers, forms)
    with listener.in_place_of_layers():
        run_model(model, {name: value for name, value in batch.items() if name != "labels"})
    if listener.states is None:
        raise NotWalkable("no layer was called")
    return Entered(listener.states, listener.calls)


class _Listener:
    """Stands in for layers and hands on what they get."""

    def __init__(self, layers: Mapping[int, nn.Module], forms: Mapping[int, int]) -> None:
        self._layers = layers
        self._forms = forms
        self._arguments = {number: StatesArgument(layer, number) for number, layer in layers.items()}
        self._last = max(layers)
        self._handed_on: Tensor | None = None
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self.states: Tensor | None = None
        self.calls: dict[int, Call] = {}

    @contextmanager
    def in_place_of_layers(self) -> Iterator[None]:
        handles: list[Handle] = []
        forwards = {number: vars(layer).get("forward") for number, layer in self._layers.items()}
        try:
            for number, layer in self._layers.items():
                # By a hook, which sees what comes before other hooks have changed it; those run again on the walk.
                handles.append(layer.register_forward_pre_hook(self._see_as(number), with_kwargs=True, prepend=True))
                vars(layer)["forward"] = self._hand_on_as(number)
            yield
        finally:
            for handle in handles:
                handle.remove()
            for number, layer in self._layers.items():
                # accelerate puts a forward of its own into the module; others have that of their class.
                if forwards[number] is not None:
                    vars(layer)["forward"] = forwards[number]
                else:
                    vars(layer).pop("forward", None)

    def _see_as(self, number: int) -> Any:
        def see(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            argument = self._arguments[number]
            states = entering_states(argument, inputs, named)
            if number in self.calls:
                raise NotWalkable(f"layer {number} is called more than once in a forward")
            if self._handed_on is None:
                self.states = states.cpu()
            elif states is not self._handed_on and not torch.equal(states, self._handed_on):
                raise NotWalkable(f"the states are changed before they enter layer {number}")
            rest, rest_named = argument.replaced(inputs, named, None)
            self.calls[number] = Call(
                tuple(self._keep(value, number) for value in rest),
                {name: self._keep(value, number) for name, value in rest_named.items()},
            )

        return see

    def _hand_on_as(self, number: int) -> Any:
        def hand_on(*inputs: Any, **named: Any) -> Any:
            self._handed_on = entering_states(self._arguments[number], inputs, named)
            if number == self._last:
                raise StopForward
            form = self._forms[number]
            return (self._handed_on, *[None] * (form - 1)) if form else self._handed_on

        return hand_on

    def _keep(self, value: Any, number: int) -> Any:
        """An argument with its tensors on the CPU, each once however many layers get it."""
        if isinstance(value, Tensor):
            # The original is kept beside its copy, so that no other tensor gets its identity meanwhile.
            return self._kept.setdefault(id(value), (value, value.cpu()))[1]
        if isinstance(value, PLAIN):
            return value
        if type(value) is tuple:
            return tuple(self._keep(part, number) for part in value)
        raise NotWalkable(f"layer {number} is given a {type(value).__name__}, which layers may share")


def _collect(value: Any, seen: dict[int, Tensor]) -> None:
    if isinstance(value, Tensor):
        seen[id(value)] = value
    elif isinstance(value, tuple):
        for part in value:
            _collect(part, seen)
