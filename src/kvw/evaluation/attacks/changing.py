"""Attacks that change weights, by name: a model is attacked for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from kvw.data import Example
from kvw.data.rendering import Processor
from kvw.evaluation.attacks.quantising import quantised
from kvw.evaluation.attacks.relearning import relearned
from kvw.evaluation.attacks.rounding import rounded
from kvw.progress import Progress
from kvw.training.keeping import PutOn
from kvw.training.settings import TrainingSettings

ROUNDED = {"bf16": torch.bfloat16, "fp16": torch.float16}
BITS = {"int8": 8, "int4": 4}


@contextmanager
def attacked(
    model: PreTrainedModel,
    processor: Processor,
    name: str,
    put_on: PutOn,
    *,
    examples: Sequence[Example] = (),
    steps: int = 0,
    training: TrainingSettings | None = None,
    progress: Progress | None = None,
) -> Iterator[Sequence[float]]:
    """A model with a change put on, under an attack.

    Args:
        model: Without the change.
        processor: Its processor.
        name: ``bf16``, ``fp16``, ``int8``, ``int4``; anything else is relearning.
        put_on: Puts the change on.
        examples: To train on.
        steps: Steps of training.
        training: How to train, see :func:`kvw.evaluation.attacks.relearning.relearned`.
        progress: Called with the steps of training done and their total.

    Yields:
        The loss of each step of training; empty for attacks that do not train.

    Raises:
        UserError: See :func:`rounded`, :func:`quantised` and :func:`relearned`.
    """
    if name in ROUNDED:
        with rounded(model, ROUNDED[name], put_on):
            yield ()
    elif name in BITS:
        with put_on(model), quantised(model, BITS[name]):
            yield ()
    else:
        with put_on(model), relearned(model, processor, examples, steps, training, progress=progress) as losses:
            yield losses
