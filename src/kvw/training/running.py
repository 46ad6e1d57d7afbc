"""From an objective to a result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from kvw.data.rendering import Processor
from kvw.progress import Progress
from kvw.training.loop import train
from kvw.training.objective import Objective, Sets
from kvw.training.result import Result
from kvw.training.settings import TrainingSettings
from kvw.training.trainee import Trainee, in_training


def run(
    model: PreTrainedModel,
    processor: Processor,
    sets: Sets,
    name: str,
    build: Callable[[Trainee], Objective],
    training: TrainingSettings | None,
    *,
    settings: dict[str, Any] | None = None,
    layers: tuple[int, int] | None = None,
    reference: PreTrainedModel | None = None,
    state: Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Train a model on an objective, in place.

    Args:
        model: A plain model.
        processor: Its processor.
        sets: Forget set and retain set.
        name: Name of the method.
        build: Makes the objective, before the first step and with everything in place.
        training: How to train; None for the defaults.
        settings: The method's own settings, for the record.
        layers: See :func:`kvw.training.parts.trained_names`.
        reference: A reference other than the model itself.
        state: See :func:`kvw.training.loop.train`.
        progress: Called with the steps done and their total.
    """
    training = training or TrainingSettings()
    record = {"method": settings or {}, "training": asdict(training)}
    adapter, config = {}, None
    with in_training(model, processor, training, sets, layers=layers, other=reference) as trainee:
        objective = build(trainee)
        about = {"method": name, "method settings": record["method"]}
        progressed = train(trainee, objective, sets, about=about, state=state, progress=progress)
        changed = set(trainee.parameters)
        if trainee.adapter is not None:
            if not trainee.survivors:  # an adapter alone would fill the zeros again
                adapter, config = trainee.adapter.tensors(), trainee.adapter.config
            changed = {f"{parameter.partition('.lora_')[0]}.weight" for parameter in changed}
    weights = {parameter: value.detach() for parameter, value in model.named_parameters() if parameter in changed}
    zeros = sum(int((~alive).sum()) for alive in trainee.survivors.values())
    return Result(name, record, weights, adapter, config, tuple(progressed.history), progressed.stopped, zeros)
