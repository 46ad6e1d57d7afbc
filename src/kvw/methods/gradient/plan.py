"""How long a gradient method would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvw.data import Prepared
from kvw.methods.gradient.method import GradientMethod
from kvw.methods.gradient.settings import TrainedSettings, steps
from kvw.methods.method import LoadedModel
from kvw.methods.plan import MethodPlan, timed
from kvw.training.keeping import weights_kept
from kvw.training.objective import Sets


def training_plan(
    method: GradientMethod,
    loaded: LoadedModel,
    forget: Sequence[Prepared],
    retain: Sequence[Prepared],
    settings: TrainedSettings,
) -> MethodPlan:
    """Time one step on the longest examples; the model has its weights back afterwards."""
    training = settings.training
    once = replace(training, epochs=1) if training else None
    rows = training.batch_size * training.accumulation if training else 1
    longest = [sorted(items, key=lambda item: -item.length)[:rows] for items in (forget, retain)]
    sets: Sets = {"forget": longest[0], "retain": longest[1]}
    with weights_kept(loaded.model):
        one = timed(lambda: method.run(loaded.model, loaded.processor, sets, settings.method_settings, once))
    # Without training every example runs once.
    times = steps(training, len(forget)) if training else (len(forget) + len(retain)) / 2
    return MethodPlan(seconds={"weakening": one * times})
