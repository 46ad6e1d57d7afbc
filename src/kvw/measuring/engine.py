"""Running batches through a model for the sake of what the recorder sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor
from transformers import Cache, PreTrainedModel

from kvw.data.batches import to_model
from kvw.errors import UserError
from kvw.measuring.positions import predicting_positions
from kvw.measuring.recorder import Recorder, StopForward, recording
from kvw.measuring.sources import Positions
from kvw.measuring.statistics import Statistics
from kvw.measuring.totals import Totals
from kvw.models.finding import find_value_matrices, select_layers
from kvw.models.forward_names import cache_name
from kvw.models.sharding import refuse_scattered_data
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.processes import current
from kvw.progress import Progress

Batch = Mapping[str, Tensor]
"""What a model's forward takes (input_ids, attention_mask, pixel_values, ...) plus ``labels`` (batch, tokens), int64,
-100 outside the answer."""


def run_batch(model: PreTrainedModel, recorder: Recorder, batch: Batch, positions: Positions) -> None:
    """Run one batch up to the last measured value matrix; the recorder takes in what it sees.

    Floating-point inputs are cast to the model's dtype and everything is moved to its device. No logits. Call it under
    :func:`evaluating`.

    Args:
        model: The model whose value matrices are hooked.
        recorder: From :func:`kvw.measuring.recorder.recording`.
        batch: See :data:`Batch`.
        positions: Which positions count.

    Raises:
        UserError: The batch lacks labels, or a value matrix did not see the tokens of the batch.
    """
    chosen = predicting_positions(batch, positions)
    recorder.expect(chosen, batch["labels"].numel())
    run_model(model, {name: value for name, value in batch.items() if name != "labels"})


def run_model(model: PreTrainedModel, inputs: Batch, cache: Cache | None = None) -> None:
    """Run the model up to the last measured value matrix, on its device and with floats in its dtype.

    Args:
        model: The model whose value matrices are hooked.
        inputs: What its forward takes.
        cache: A cache to start from and to fill; None keeps no keys and values.
    """
    filled = {} if cache is None else {cache_name(model): cache}
    with suppress(StopForward):
        model(**to_model(dict(inputs), model), use_cache=cache is not None, **filled)


def measure(
    model: PreTrainedModel,
    batches: Iterable[Batch],
    *,
    layers: tuple[int, int] | None = None,
    positions: Positions = "answer",
    progress: Progress | None = None,
) -> Statistics:
    """Measure mean absolute coefficients (C_f or C_r of the paper) over batches.

    Several processes (:func:`kvw.processes.together`) share the batches among them, and the result has the digits that
    one process gives.

    Args:
        model: A loaded model; an edit attached to it is in force, and coefficients are those before its gates.
        batches: See :data:`Batch`; any order, any padding, any batch size.
        layers: First and last layer, 0-based, both included; None for all, so that the statistics serve any range.
        positions: ``answer`` or ``all``, see :data:`kvw.measuring.positions.Positions`.
        progress: Called after every batch.

    Returns:
        Sums and counts for every value matrix in the range.

    Raises:
        UserError: Unknown family, range outside the model, a batch without labels, no position at all that counts,
            or coefficients that are not finite.
    """
    matrices = find_value_matrices(model)
    if layers is not None:
        matrices = select_layers(matrices, layers)
    total = len(batches) if isinstance(batches, Sequence) else 0
    processes, totals = current(), Totals()
    with evaluating(model), recording(matrices) as recorder:

        def run(batch: Batch) -> tuple[dict[MatrixKey, Tensor], dict[MatrixKey, int]]:
            recorder.restart()
            run_batch(model, recorder, batch, positions)
            return dict(recorder.sums), dict(recorder.counts)

        for done, (_, (sums, counts)) in enumerate(processes.scatter(batches, run), 1):
            totals.add(sums, counts, 1)
            if progress:
                progress(done, total)
    return processes.broadcast(lambda: statistics_of(totals.sums, totals.counts, matrices))


def statistics_of(
    sums: Mapping[MatrixKey, Tensor], counts: Mapping[MatrixKey, int], matrices: Sequence[ValueMatrix]
) -> Statistics:
    """Sums and counts from a recorder as statistics on the CPU.

    Raises:
        UserError: No position counted, a value matrix outside the experts saw none, or a sum is not finite.
    """
    if not any(counts.values()):
        raise UserError(
            "No position predicts an answer token, so there is nothing to average.",
            found="every label is -100 (or no batch came)",
            do="check that labels hold the answer's token ids",
        )
    # Experts that no token was routed to are left alone by the methods; anything else must have been reached.
    missed = [matrix.name for matrix in matrices if matrix.key.expert is None and not counts.get(matrix.key)]
    if missed:
        raise UserError(
            "Some value matrices saw no token, so their coefficients are unknown.",
            found=", ".join(missed[:5]) + (", ..." if len(missed) > 5 else ""),
            do="leave these layers out with --layers, or add examples that reach them (images, for cross-attention)",
        )
    on_cpu = {key: value.cpu().double() for key, value in sums.items()}
    for matrix in matrices:
        if not torch.isfinite(on_cpu.setdefault(matrix.key, torch.zeros(matrix.width, dtype=torch.float64))).all():
            raise not_finite(matrix.name)
    return Statistics(on_cpu, {key: counts.get(key, 0) for key in on_cpu})


def not_finite(name: str) -> UserError:
    """The error for coefficients that overflowed or came from NaN weights or inputs."""
    return UserError(
        f"The coefficients at {name} are not finite.",
        found="NaN or infinity in the FFN",
        do="look for NaN in weights and inputs; a float16 model that overflows needs bfloat16 or float32",
    )


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients for the block; every module gets its own training flag back.

    Raises:
        UserError: The model is split over the processes that the data are scattered over.
    """
    refuse_scattered_data(model)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
