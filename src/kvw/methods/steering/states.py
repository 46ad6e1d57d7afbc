"""Hidden states that enter decoder layers, one for each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial

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
    """Prompts, read at their last token.

    Raises:
        UserError: An example is plain text.
    """
    if plain := [item.example.identifier for item in prepared if item.example.plain]:
        raise UserError(
            "Plain text has no question at whose end a state could be read.",
            found=plain[0],
            do="ask questions about it (kvw data build makes some), or take another method",
        )
    inputs = prompt_batch(prepared, processor)
    chosen = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
    chosen[:, -1] = True  # padded on the left
    return Reading(tuple(places), inputs, chosen)


def answer_reading(prepared: Sequence[Prepared], places: Sequence[int], processor: Processor) -> Reading:
    """Prompts with their answers, read at the answers' tokens."""
    inputs = answer_batch(prepared, processor)
    labels = inputs.pop("labels")
    return Reading(tuple(places), inputs, labels != IGNORED)


def predicting_reading(prepared: Sequence[Prepared], places: Sequence[int], processor: Processor) -> Reading:
    """Prompts with their answers, read where an answer token is predicted: one position before each."""
    reading = answer_reading(prepared, places, processor)
    chosen = reading.chosen.roll(-1, 1)
    chosen[:, -1] = False  # no label is in the first column, so nothing came round
    return Reading(reading.places, reading.inputs, chosen)


def readings(
    prepared: Sequence[Prepared], processor: Processor, *, answers: bool = False, predicting: bool = False
) -> list[Reading]:
    """All samples in batches of similar length: read at their last prompt token, at the tokens of their answers, or
    where these are predicted."""
    read = predicting_reading if predicting else answer_reading if answers else prompt_reading
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
    find = partial(_outputs, model) if outputs else partial(_inputs, model, take=row_means)
    order = torch.tensor([place for batch in batches for place in batch.places]).argsort()
    return _in_order(_read(model, batches, layers, find, progress), order)


def read_tokens(
    model: PreTrainedModel,
    batches: Sequence[Reading],
    layers: Sequence[int],
    most: int,
    *,
    progress: Progress | None = None,
) -> tuple[dict[int, Tensor], Tensor]:
    """Run batches and keep some of the chosen states of each row for each layer.

    Args:
        model: A loaded model.
        batches: From :func:`readings`.
        layers: 0-based.
        most: How many states of each row at most; they are spread evenly over the chosen ones.
        progress: Called after every batch.

    Returns:
        For each layer (tokens, hidden), float32, on the CPU, in the order of the samples; and the sample of each
        token: (tokens,), int64.

    Raises:
        UserError: See :func:`read_states`.
    """
    fewer = [replace(batch, chosen=torch.stack([spread(row, most) for row in batch.chosen])) for batch in batches]
    samples = torch.cat([torch.tensor(batch.places).repeat_interleave(batch.chosen.sum(1).cpu()) for batch in fewer])
    order = samples.argsort(stable=True)
    parts = _read(model, fewer, layers, partial(_inputs, model, take=chosen_states), progress)
    return _in_order(parts, order), samples[order]


def spread(chosen: Tensor, most: int) -> Tensor:
    """At most so many of the chosen positions, spread evenly, the first among them: (tokens,), bool."""
    places = chosen.nonzero()[:, 0]
    steps = torch.arange(most, device=places.device) * len(places) // most if len(places) > most else slice(None)
    return torch.zeros_like(chosen).index_fill(0, places[steps], True)


def _read(
    model: PreTrainedModel,
    batches: Sequence[Reading],
    layers: Sequence[int],
    find: Callable[[Reading, Sequence[int]], dict[int, Tensor]],
    progress: Progress | None,
) -> dict[int, Tensor]:
    """What is found in each layer, batch after batch."""
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    with evaluating(model):
        for done, batch in enumerate(batches, 1):
            found = find(batch, layers)
            for layer in layers:
                parts[layer].append(found[layer])
            if progress is not None:
                progress(done, len(batches))
    return {layer: torch.cat(parts[layer]) for layer in layers}


def _in_order(found: dict[int, Tensor], order: Tensor) -> dict[int, Tensor]:
    """The states of all layers in another order, if all of them are finite."""
    states = {layer: value[order] for layer, value in found.items()}
    for layer, value in states.items():
        if not bool(value.isfinite().all()):
            raise UserError(
                f"The states that enter layer {layer} are not finite.",
                found=f"NaN or infinity in {int((~value.isfinite()).any(1).sum())} of {len(value)} states",
                do="look for NaN in weights and inputs; a float16 model that overflows needs bfloat16 or float32",
            )
    return states


def _inputs(
    model: PreTrainedModel, batch: Reading, layers: Sequence[int], *, take: Callable[[Tensor, Tensor], Tensor]
) -> dict[int, Tensor]:
    found: dict[int, Tensor] = {}
    last = max(layers)

    def keep(layer: int) -> See:
        def see(states: Tensor) -> None:
            found[layer] = take(states, batch.chosen)
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


def chosen_states(states: Tensor, chosen: Tensor) -> Tensor:
    """The chosen states row by row, in float32 and on the CPU: (chosen, hidden); arguments as of :func:`row_means`."""
    return states[chosen.to(states.device)].float().cpu()


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
