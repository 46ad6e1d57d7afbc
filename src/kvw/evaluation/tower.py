"""What a model's vision tower makes of one picture."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.data import Example, ImageSource, prepare, prompt_batch, to_model
from kvw.data.rendering import Processor
from kvw.errors import UserError
from kvw.measuring.engine import evaluating
from kvw.measuring.recorder import StopForward
from kvw.training.parts import find_parts

QUESTION = "What is this?"
"""Asked of the picture alone; the tower does not see it."""


def tower_features(model: PreTrainedModel, processor: Processor) -> Callable[[ImageSource], list[float]]:
    """A function from a picture to the mean of what the tower puts out, over its patches, of length 1.

    Raises:
        UserError: The model has no vision tower.
    """
    towers = find_parts(model).vision
    if not towers:
        raise UserError(
            f"{type(model).__name__} has no vision tower.", do="build the store from questions without pictures"
        )
    tower: Any = model.get_submodule(towers[0])

    def feature(source: ImageSource) -> list[float]:
        seen: list[Tensor] = []

        def take(module: Any, arguments: Any, output: Any) -> None:
            states = getattr(output, "last_hidden_state", None)
            found = states if states is not None else output[0] if isinstance(output, tuple) else output
            seen.append(found)
            raise StopForward

        prepared = prepare([Example(QUESTION, "x", (source,))], processor, model.config)
        inputs = to_model(prompt_batch(prepared, processor), model)
        with evaluating(model), tower.register_forward_hook(take), suppress(StopForward):
            model(**inputs, use_cache=False)
        mean = seen[0].detach().float().flatten(0, -2).mean(0)  # (width,)
        return [float(value) for value in torch.nn.functional.normalize(mean, dim=0)]

    return feature
