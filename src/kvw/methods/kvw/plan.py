"""How long Knowledge Vector Weakening would take."""

from __future__ import annotations

from collections.abc import Sequence

from kvw.data import Prepared, answer_batch
from kvw.measuring.batch_sizing import token_budget
from kvw.measuring.engine import measure
from kvw.measuring.examples import measure_examples
from kvw.methods.kvw.settings import KvwSettings
from kvw.methods.method import LoadedModel
from kvw.methods.plan import MethodPlan, largest_batch, timed
from kvw.models.finding import find_value_matrices, select_layers
from kvw.models.placement import execution_device


def kvw_plan(
    loaded: LoadedModel, forget: Sequence[Prepared], retain: Sequence[Prepared], settings: KvwSettings
) -> MethodPlan:
    """Time one step on the longest forget example, and the largest batch of the retain set."""
    model, processor = loaded.model, loaded.processor
    matrices = select_layers(find_value_matrices(model), settings.layers)
    layers = (matrices[0].key.layer, matrices[-1].key.layer)
    step = [answer_batch([max(forget, key=lambda item: item.length)], processor)]
    one_step = timed(lambda: measure(model, step, layers=layers, positions=settings.positions))
    seconds = {"weakening": one_step * len(forget) * settings.epochs}
    if retain:
        some = largest_batch(retain, token_budget(execution_device(model)))
        one_batch = timed(lambda: measure_examples(model, processor, some, layers=loaded.all_layers))
        seconds["measuring the retain set"] = one_batch / len(some) * len(retain)
    return MethodPlan(seconds=seconds)
