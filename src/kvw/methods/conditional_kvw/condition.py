"""The condition of conditional KVW: a filter that says by the prompt who is affected; see docs/methods/steering.md."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from kvw.data import Example, prepare
from kvw.data.rendering import Processor
from kvw.edits.conditional import Condition
from kvw.methods.conditional_kvw.settings import ConditionalKvwSettings
from kvw.methods.steering.gate import GateReport
from kvw.methods.steering.method import check_not_empty, fit_layer
from kvw.methods.steering.states import read_states, readings
from kvw.models.layer_inputs import decoder_layers
from kvw.progress import Progress


def find_condition(
    model: PreTrainedModel,
    processor: Processor,
    forget: Sequence[Example],
    retain: Sequence[Example],
    settings: ConditionalKvwSettings,
    *,
    progress: Progress | None = None,
) -> tuple[Condition, GateReport]:
    """Fit the filter of steering to what enters the first layer that is weakened.

    Args:
        model: A loaded model of a known family; it stays as it was.
        processor: Its processor.
        forget: Examples that are to be affected; never empty.
        retain: Examples that are not; never empty. Plain text is left out.
        settings: ``layers``, ``threshold``, and those of the null space.
        progress: Called with batches done in the current pass and their total.

    Returns:
        The condition, and how well its filter tells held-out examples apart; there is no direction, so its ``shift`` is
        0.

    Raises:
        UserError: A set is empty, the layers do not fit the model, a state is not finite, or the retain set leaves no
            null space.
    """
    retain = [example for example in retain if not example.plain]  # there is no prompt that could decide
    check_not_empty(forget, retain)
    layer, _ = settings.chosen_layers(len(decoder_layers(model)))
    forgotten, kept = (
        read_states(model, readings(prepared, processor), [layer], progress=progress)[layer]
        for prepared in (prepare(examples, processor, model.config) for examples in (forget, retain))
    )
    fitted, report = fit_layer(layer, torch.zeros(forgotten.shape[1]), forgotten, kept, settings.gate())
    return Condition(layer, fitted.filter, settings.threshold), report
