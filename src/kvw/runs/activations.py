"""``kvw inspect activations``: where in a question and its answer the knowledge vectors are active."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from kvw.data import Example, read_examples
from kvw.data.reading import AS_IT_IS, Reading
from kvw.evaluation.loaded import Loaded
from kvw.measuring.examples import measure_examples
from kvw.measuring.statistics import Statistics, accessor
from kvw.measuring.token_coefficients import TokenCoefficients, token_coefficients
from kvw.models.finding import find_value_matrices
from kvw.models.loading import Checkpoint
from kvw.progress import Progress, Reporter
from kvw.records.activations import Activations, LayerRatio, ReadExample
from kvw.runs.costs import Stopwatch
from kvw.runs.material import of_all_subjects
from kvw.settings import check_at_least


def activations(
    checkpoint: Checkpoint,
    data: Path,
    reporter: Reporter,
    *,
    retain: Path | None = None,
    examples: int = 4,
    device: str | None = None,
    reading: Reading = AS_IT_IS,
) -> Activations:
    """Read some examples token by token.

    Args:
        checkpoint: The model.
        data: Questions with answers; the accessor says how much more active a vector is on them.
        reporter: Told of stages.
        retain: More active than on these; None for than the mean of the layer.
        examples: How many are read, of as many subjects as there are.
        device: Where to run; None for the accelerator if there is one.
        reading: What the columns are called, and which answers of conversations count.

    Raises:
        UserError: The data or the model cannot be used, or ``examples`` is below 1.
    """
    check_at_least("--examples", examples, 1)
    asked = read_examples(data, reading)
    kept = read_examples(retain, reading) if retain is not None else []
    watch = Stopwatch(reporter)
    with watch.stage("loading the model"):
        loaded = Loaded.load(checkpoint, device)
    with watch.stage("checking the data"):
        loaded.agree([*asked, *kept])
    with watch.stage("measuring the data") as progress:
        forget = _measured(loaded, asked, progress)
    against = None
    if kept:
        with watch.stage("measuring the retain set") as progress:
            against = _measured(loaded, kept, progress)
    matrices = find_value_matrices(loaded.model)
    weights = {
        matrix.key: accessor(
            forget.coefficients(matrix.key), against.coefficients(matrix.key) if against is not None else None
        )
        for matrix in matrices
    }
    chosen = loaded.prepare(of_all_subjects(asked, examples))
    with watch.stage("reading token by token"):
        read = [token_coefficients(loaded.model, loaded.processor, item, matrices, weights) for item in chosen]
    return Activations(
        model=str(checkpoint),
        data=data.name,
        questions=len(asked),
        retain=retain.name if retain is not None else "",
        examples=[_part(one) for one in read],
        ratios=ratios(read),
    )


def ratios(found: Sequence[TokenCoefficients]) -> list[LayerRatio]:
    """Mean over all answer positions divided by the mean over all others, layer by layer."""
    return [
        LayerRatio(
            layer=layer,
            mean=_ratio([(one.mean[layer], one.classes) for one in found]),
            weighted=_ratio([(one.weighted[layer], one.classes) for one in found]),
        )
        for layer in sorted(found[0].mean)
    ]


def _ratio(found: Sequence[tuple[torch.Tensor, Sequence[str]]]) -> float | None:
    answer = [value for values, classes in found for value, one in _pairs(values, classes) if one == "answer"]
    other = [value for values, classes in found for value, one in _pairs(values, classes) if one != "answer"]
    if not answer or not other or not sum(other):
        return None
    return (sum(answer) / len(answer)) / (sum(other) / len(other))


def _pairs(values: torch.Tensor, classes: Sequence[str]) -> list[tuple[float, str]]:
    return list(zip(values.tolist(), classes, strict=True))


def _measured(loaded: Loaded, examples: Sequence[Example], progress: Progress) -> Statistics:
    return measure_examples(
        loaded.model,
        loaded.processor,
        loaded.prepare(examples),
        layers=loaded.all_layers,
        fingerprint=loaded.statistics_fingerprint(examples, "answer"),
        progress=progress,
    ).statistics


def _part(found: TokenCoefficients) -> ReadExample:
    def listed(values: Mapping[int, torch.Tensor]) -> dict[int, list[float]]:
        return {layer: [float(f"{value:.4g}") for value in row.tolist()] for layer, row in values.items()}

    return ReadExample(
        tokens=list(found.tokens),
        classes=list(found.classes),
        mean=listed(found.mean),
        weighted=listed(found.weighted),
    )
