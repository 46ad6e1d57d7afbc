"""Hidden states that enter decoder layers, one for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.data.batches import IGNORED, Prepared, answer_batch, image_groups, prompt_batch, to_model
from kvw.data.rendering import Processor
from kvw.errors import UserError
from kvw.measuring.engine import evaluating
from kvw.measuring.recorder import StopForward
from kvw.models.layer_inputs import See, decoder_layers, on_input
from kvw.progress import Progress

ROWS_PER_BATCH = 8


@dataclass(frozen=True)
class Reading:
    """A batch, and the positions of each row that its state is the mean of.

    Args:
        places: Where the rows belong among all samples.
        inputs: What the model takes.
        chosen: (rows, tokens), bool; at least one in each row.
    """

    places: tuple[int, ...]
    inputs: dict[str, Tensor]
    chosen: Tensor


def prompt_reading(prepared: Sequence[Prepared], places: Sequence[int], processor: Processor) -> Reading:
    """Prompts, read at their last token."""
    inputs = prompt_batch(prepared, processor)
    chosen = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    chosen[:, -1] = True  # padded on the left
    return Reading(tuple(places), inputs, chosen)


def answer_reading(prepared: Sequence[Prepared], places: Sequence[int], processor: Processor) -> Reading:
    """Prompts with their answers, read at the answers' tokens."""
    inputs = answer_batch(prepared, processor)
    labels = inputs.pop("labels")
    return Reading(tuple(places), inputs, labels != IGNORED)


def readings(prepared: Sequence[Prepared], processor: Processor, *, answers: bool = False) -> list[Reading]:
    """All samples in batches of similar length."""
    read = answer_reading if answers else prompt_reading
    found = []
    for group in image_groups(prepared):
        ordered = sorted(group, key=lambda place: prepared[place].length)
        for start in range(0, len(ordered), ROWS_PER_BATCH):
            places = ordered[start : start + ROWS_PER_BATCH]
            found.append(read([prepared[place] for place in places], places, processor))
    return found


def read_states(
    model: PreTrainedModel,
    batches: Sequence[Reading],
    layers: Sequence[int],
    *,
    outputs: bool = False,
    progress: Progress | None = None,
) -> dict[int, Tensor]:
    """Run batches and keep one state of each row for each layer.

    Args:
        model: A loaded model.
        batches: From :func:`readings`.
        layers: 0-based.
        outputs: Read what the model calls ``hidden_states[layer + 1]`` instead: block outputs, and for the last layer
            what the final norm makes of it.
        progress: Called after every batch.

    Returns:
        For each layer (samples, hidden), float32, on the CPU, in the order of the samples.

    Raises:
        UserError: A layer did not run, or a state is not finite.
    """
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    with evaluating(model):
        for done, batch in enumerate(batches, 1):
            found = _outputs(model, batch, layers) if outputs else _inputs(model, batch, layers)
            for layer in layers:
                parts[layer].append(found[layer])
            if progress is not None:
                progress(done, len(batches))
    order = torch.tensor([place for batch in batches for place in batch.places]).argsort()
    states = {layer: torch.cat(parts[layer])[order] for layer in layers}
    for layer, value in states.items():
        if not bool(value.isfinite().all()):
            raise UserError(
                f"The states that enter layer {layer} are not finite.",
                found=f"NaN or infinity in {int((~value.isfinite()).any(1).sum())} of {len(value)} samples",
                do="look for NaN in weights and inputs; a float16 model that overflows needs bfloat16 or float32",
            )
    return states


def _inputs(model: PreTrainedModel, batch: Reading, layers: Sequence[int]) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    last = max(layers)

    def keep(layer: int) -> See:
        def see(states: Tensor) -> None:
            found[layer] = row_means(states, batch.chosen)
            if layer == last:
                raise StopForward

        return see

    modules = decoder_layers(model)
    with ExitStack() as hooks, suppress(StopForward):
        for layer in layers:
            hooks.callback(on_input(modules[layer], layer, keep(layer)).remove)
        model(**to_model(batch.inputs, model), use_cache=False)
    if missing := [layer for layer in layers if layer not in found]:
        raise UserError(
            "Some decoder layers did not run for all samples.",
            found=", ".join(map(str, missing)),
            do="leave them out with the setting skipped (cross-attention layers run only where there is an image)",
        )
    return found


def _outputs(model: PreTrainedModel, batch: Reading, layers: Sequence[int]) -> dict[int, Tensor]:
    states = model(**to_model(batch.inputs, model), use_cache=False, output_hidden_states=True).hidden_states
    return {layer: row_means(states[layer + 1], batch.chosen) for layer in layers}


def row_means(states: Tensor, chosen: Tensor) -> Tensor:
    """The mean of the chosen states of each row, in float32 and on the CPU.

    Args:
        states: (rows, tokens, hidden).
        chosen: (rows, tokens), bool.

    Returns:
        (rows, hidden), float32.
    """
    # Row by row: a product with zeros would let infinities at padding through.
    rows = [row[mask.to(row.device)].float().mean(0) for row, mask in zip(states, chosen, strict=True)]
    return torch.stack(rows).cpu()
