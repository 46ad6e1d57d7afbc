"""What a model makes of a state between its layers (the logit lens)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvw.data import to_model
from kvw.errors import UserError
from kvw.models.finding import find_layers
from kvw.models.forward_names import takes
from kvw.models.layer_inputs import decoder_layers, on_input


class Tail:
    """What a model makes of a state after its last layer: final norm, output layer, and whatever it does behind.

    The model's own forward does it, over one token, with the states put in before the final norm. So scales and caps of
    a family are as they are in the model.

    Args:
        model: Its final norm is found by wiring: the module beside the layers that takes what the last one gives.
        do: What to do if there is none, for the message.
    """

    def __init__(self, model: PreTrainedModel, *, do: str) -> None:
        self.model, self._do = model, do
        self._layers = decoder_layers(model)
        self._parent = model.get_submodule(find_layers(model).rpartition(".")[0])
        self._norm: nn.Module | None = None

    def states(self, batch: dict[str, Tensor], rows: Tensor, columns: Tensor) -> Tensor:
        """The states at some positions: (layers + 1, positions, hidden), those of the embeddings first.

        Gradients flow through them unless they are off.

        Args:
            batch: From ``answer_batch``.
            rows, columns: Of each position: (positions,), int64.
        """
        inputs = to_model(batch, self.model)
        found: list[Tensor] = []
        last: list[Any] = []

        def see(states: Tensor) -> None:
            found.append(_at(states, rows, columns))

        def see_last(_: nn.Module, __: Any, output: Any) -> None:
            last.append(output if isinstance(output, Tensor) else output[0])

        def see_norm(norm: nn.Module, given: tuple[Any, ...]) -> None:
            if last and given and given[0] is last[0] and self._norm is None:
                self._norm = norm

        with ExitStack() as hooks:
            for number, layer in enumerate(self._layers):
                hooks.callback(on_input(layer, number, see).remove)
            hooks.callback(self._layers[-1].register_forward_hook(see_last).remove)
            for child in self._parent.children():
                hooks.callback(child.register_forward_pre_hook(see_norm).remove)
            given: dict[str, Any] = {name: value for name, value in inputs.items() if name != "labels"}
            if takes(self.model, "logits_to_keep"):
                given["logits_to_keep"] = 1  # none are looked at
            self.model(**given, use_cache=False)
        if self._norm is None or len(found) != len(self._layers):
            raise UserError(
                f"The logit lens finds no final norm in this {type(self.model).__name__}.",
                found=f"beside the layers: {', '.join(name for name, _ in self._parent.named_children())}",
                do=self._do,
            )
        return torch.stack([state.to(last[0].device) for state in (*found, _at(last[0], rows, columns))])

    def logits(self, states: Tensor) -> Tensor:
        """What the model makes of states: (positions, vocabulary), float32.

        Args:
            states: (positions, hidden), from :meth:`states`.
        """
        if self._norm is None:
            raise ValueError("no states were taken from this model yet")
        token = torch.ones((1, 1), dtype=torch.int64)
        inputs = to_model({"input_ids": token, "attention_mask": token}, self.model)

        def put_in(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (states[:, None].to(given[0].device), *given[1:])  # rows of one token, like the one that is run

        with self._norm.register_forward_pre_hook(put_in):
            logits: Tensor = self.model(**inputs, use_cache=False).logits
        return logits[:, 0].float()


def _at(states: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return states[rows.to(states.device), columns.to(states.device)]
