"""Erasure directions from contrast pairs: the states of a model that refuses minus those of one that knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from kvw.data import Example, prepare, read_examples
from kvw.data.batches import Prepared
from kvw.data.rendering import Processor
from kvw.errors import UserError
from kvw.methods.gradient.refusals import REFUSALS, with_refusals
from kvw.methods.steering.perturbation import perturbed
from kvw.methods.steering.settings import SteeringSettings
from kvw.methods.steering.states import Reading, read_states, readings
from kvw.progress import Progress

FEWEST = 2
"""Examples on either side; a difference of single examples is a direction of these two."""


@dataclass(frozen=True)
class ContrastPairs:
    """Examples on which the model recalls, and examples on which it behaves as if it did not know.

    Args:
        recall: The model answers.
        erasure: The model refuses, or does not know.
        answers: Whether the two sides differ in their answers and not in their prompts: then states are read at the
            answers' tokens instead of at the last prompt token.
    """

    recall: Sequence[Prepared]
    erasure: Sequence[Prepared]
    answers: bool = False

    def __post_init__(self) -> None:
        for name, side in (("recall", self.recall), ("erasure", self.erasure)):
            if len(side) < FEWEST:
                raise UserError(
                    f"An erasure direction needs more examples on the {name} side.",
                    found=str(len(side)),
                    do=f"give at least {FEWEST} (the paper has 17 pairs)",
                )


def pairs_of(recall: Sequence[Example], erasure: Sequence[Example], processor: Processor) -> ContrastPairs:
    """Pairs whose prompts differ; answers are not looked at.

    Raises:
        UserError: There are too few, or one cannot be rendered.
    """
    return ContrastPairs(prepare(recall, processor), prepare(erasure, processor))


def read_pairs(recall: Path, erasure: Path, processor: Processor) -> ContrastPairs:
    """Pairs from two data files, as :func:`kvw.read_examples` reads them.

    Raises:
        UserError: A file cannot be read, or see :func:`pairs_of`.
    """
    return pairs_of(read_examples(recall), read_examples(erasure), processor)


def refusal_pairs(
    forget: Sequence[Example], processor: Processor, seed: int = 0, config: PretrainedConfig | None = None
) -> ContrastPairs:
    """The forget set with its answers on one side, and with refusals in their place on the other.

    Prompts are the same on both sides, so states are read at the tokens of answers and refusals.

    Raises:
        UserError: There are too few, or one cannot be rendered or does not fit.
    """
    prepared = prepare(forget, processor, config)
    return ContrastPairs(prepared, with_refusals(prepared, processor, REFUSALS, seed, config), answers=True)


def find_directions(
    model: PreTrainedModel,
    processor: Processor,
    pairs: ContrastPairs,
    layers: Sequence[int],
    settings: SteeringSettings,
    *,
    progress: Progress | None = None,
) -> dict[int, Tensor]:
    """d_l = mean of h_l over the erasure side - mean over the recall side.

    With ``epsilon`` above 0 the images of the recall side are perturbed first, see
    :mod:`kvw.methods.steering.perturbation`.

    Returns:
        For each layer (hidden,), float64. The authors' sign is the other one, with a negative strength.

    Raises:
        UserError: The two sides have the same states, a state is not finite, or there is no image to perturb.
    """
    recall = _recall_readings(model, processor, pairs, settings)
    erasure = readings(pairs.erasure, processor, answers=pairs.answers)
    outputs = settings.parity
    known = read_states(model, recall, layers, outputs=outputs, progress=progress)
    erased = read_states(model, erasure, layers, outputs=outputs, progress=progress)
    directions = {}
    for layer in layers:
        directions[layer] = erased[layer].double().mean(0) - known[layer].double().mean(0)
        size = float(known[layer].double().mean(0).norm())
        if float(directions[layer].norm()) <= 1e-6 * size:
            raise UserError(
                f"Recall and erasure do not differ in layer {layer}, so there is no direction between them.",
                found=f"a difference of length {float(directions[layer].norm()):.2g} between states of length "
                f"{size:.2g}",
                do="give pairs whose prompts differ" + (", and leave out layer 0" if layer == 0 else ""),
            )
    return directions


def _recall_readings(
    model: PreTrainedModel, processor: Processor, pairs: ContrastPairs, settings: SteeringSettings
) -> list[Reading]:
    if settings.epsilon == 0:
        return readings(pairs.recall, processor, answers=pairs.answers)
    recall = []
    shown = any(item.image_count for item in pairs.recall)
    for place, item in enumerate(pairs.recall):
        (reading,) = readings([item], processor, answers=pairs.answers)
        if shown and not item.image_count:
            recall.append(Reading((place,), reading.inputs, reading.chosen))
            continue
        pixels = perturbed(model, processor, item, settings, seed=f"{settings.seed} {place}")
        recall.append(Reading((place,), {**reading.inputs, "pixel_values": pixels}, reading.chosen))
    return recall
