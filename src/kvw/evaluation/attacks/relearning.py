"""Attack: train the unlearned model a little, and see what comes back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from kvw.data import Example, prepare
from kvw.data.benchmarks.choices import order_key
from kvw.data.rendering import Processor
from kvw.errors import UserError
from kvw.folding import collapsed
from kvw.progress import Progress
from kvw.training.keeping import weights_kept
from kvw.training.losses import descent
from kvw.training.objective import Objective
from kvw.training.running import run
from kvw.training.settings import TrainingSettings

LEARNING_RATE = 1e-5


@contextmanager
def relearned(
    model: PreTrainedModel,
    processor: Processor,
    examples: Sequence[Example],
    steps: int,
    training: TrainingSettings | None = None,
    *,
    progress: Progress | None = None,
) -> Iterator[tuple[float, ...]]:
    """Train on examples for a number of optimiser steps; the model asked in the block is the trained one.

    Minimises the mean negative log-likelihood per answer token, with the training loop that everything else is trained
    with. All examples are gone through equally often, to one. Each number of steps is a training of its own: an
    attacker with few steps has nothing else, and each can be repeated by itself.

    Args:
        model: With the change that is attacked in its weights, or attached.
        processor: Its processor.
        examples: Retain examples, or those of :func:`split_by_subject` about half of the forgotten.
        steps: Optimiser steps; 0 leaves the model as it is.
        training: How to train; ``epochs`` does not count. None for :func:`relearning_settings`.
        progress: Called with the steps done and their total.

    Yields:
        The mean loss of each step before its update, nats per answer token.

    Raises:
        UserError: There are no examples, training cannot go on, or see
            :func:`~kvw.training.keeping.weights_kept`.
    """
    if steps < 0 or not examples:
        raise UserError(
            "Relearning takes a number of steps and examples.",
            found=f"{steps} steps, {len(examples)} examples",
            do="give 1 step or more, and at least one example",
        )
    training = replace(training or relearning_settings(model), epochs=1)
    with weights_kept(model):
        yield _learn(model, processor, examples, steps, training, progress) if steps else ()


def relearning_settings(model: PreTrainedModel, learning_rate: float = LEARNING_RATE) -> TrainingSettings:
    """Full fine-tuning of the language part at a constant rate; what is held in 16 bits is trained in float32.

    Raises:
        UserError: The rate makes no sense.
    """
    small = model.dtype in (torch.bfloat16, torch.float16)
    return TrainingSettings(
        learning_rate=learning_rate, schedule="constant", precision="bf16" if small else "as loaded"
    )


def split_by_subject(
    examples: Sequence[Example], seed: int = 0, halves: Mapping[str, int] | None = None
) -> tuple[list[Example], list[Example]]:
    """Divide examples so that no subject is in both halves: to train on one, and ask about the other.

    Args:
        examples: With ``subject`` in their metadata.
        seed: Seed of the division; subjects are assigned to the halves in turn.
        halves: The half (0 or 1) of subjects that have one already, as in the manifest of a benchmark run.

    Returns:
        The two halves, each in the order of the examples.

    Raises:
        UserError: An example is about nobody.
    """
    nobody = [example.identifier for example in examples if example.subject is None]
    if nobody:
        raise UserError(
            "Examples without a subject cannot be divided by subject.",
            found=", ".join(nobody[:5]),
            do="name the 'subject' of each in the data",
        )
    half_of = {collapsed(one): half for one, half in (halves or {}).items()}
    # Drawn by a spelling, the same whatever the order of the examples.
    spelled = {collapsed(one): one for one in sorted({str(example.subject) for example in examples}, reverse=True)}
    others = sorted(spelled.keys() - half_of.keys(), key=lambda one: order_key(seed, spelled[one]))
    half_of |= {one: turn % 2 for turn, one in enumerate(others)}
    first, second = ([example for example in examples if half_of[str(example.subject_key)] == half] for half in (0, 1))
    return first, second


def _learn(
    model: PreTrainedModel,
    processor: Processor,
    examples: Sequence[Example],
    steps: int,
    training: TrainingSettings,
    progress: Progress | None,
) -> tuple[float, ...]:
    prepared = prepare(examples, processor, model.config)
    # One epoch through exactly what so many steps take.
    order = _rounds(len(prepared), steps * training.batch_size * training.accumulation, training.seed)
    result = run(
        model,
        processor,
        {"forget": [], "retain": [prepared[place] for place in order]},
        "relearn",
        lambda _: Objective(forget=None, retain=descent(1.0)),
        training,
        progress=progress,
    )
    return tuple(step.losses["retain"] for step in result.history)


def _rounds(count: int, wanted: int, seed: int) -> list[int]:
    """``wanted`` positions: whole rounds, each in an order of its own, the last one cut short."""
    rounds = range(-(-wanted // count))
    order = [place for turn in rounds for place in random.Random(f"{seed} {turn}").sample(range(count), count)]
    return order[:wanted]
