"""Second moments, and the coefficients of single tokens, in one forward pass over the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.measuring.batch_sizing import Halving
from kvw.measuring.checks import refuse_missed, refuse_not_finite
from kvw.measuring.engine import Batch, evaluating, run_model
from kvw.measuring.fingerprint import digest
from kvw.measuring.labelled import LabelledBatches, Piece, pieces_of
from kvw.measuring.moment_recorder import MomentRecorder
from kvw.measuring.moments import Moment, Tokens
from kvw.measuring.plans import Examples, InOrder, every_example, plan_of, shared_plans
from kvw.measuring.prefixes import SharedBatch, run_beginnings, run_endings, shares_prefixes
from kvw.measuring.source_weights import image_token_ids
from kvw.measuring.sources import Sources
from kvw.models.placement import execution_device
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.processes import current
from kvw.progress import Progress


def measure_moments(
    model: PreTrainedModel,
    batches: Iterable[Batch | SharedBatch],
    matrices: Sequence[ValueMatrix],
    *,
    sources: Sources | None = None,
    examples: Examples | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
) -> tuple[dict[MatrixKey, Moment], dict[MatrixKey, Tokens]]:
    """Run batches up to the last of the value matrices and take second moments, and coefficients of some examples.

    One moment takes width^2 numbers: 0.5 GB in float32 for the 11,008 of LLaVA-1.5-7B. Measure a few layers at a time
    where that is too much; the forward ends with the last of them.

    When memory runs out, :class:`~kvw.measuring.labelled.LabelledBatches` are halved, to the same numbers up to
    rounding. What the value matrices before the one that failed have taken in stays, and the halves skip it.

    Several processes (:func:`kvw.processes.together`) share the batches. Each adds up its part of all moments, and
    at the end the parts of each value matrix are added, in the order of the processes, in the one that
    :meth:`~kvw.processes.Processes.scatter` gives it to. That is the result of one process up to float32 rounding and
    not to the bit: other sums are formed first. (The order of the batches could only be kept by sending the moments of
    every batch, gigabytes each time.) Tokens are gathered in the order of the examples, and are those of one process.

    Args:
        model: A loaded model; an edit attached to it is in force in the layers before each.
        batches: See :data:`~kvw.measuring.engine.Batch`; any padding, any batch size. Or shared beginnings and
            endings, to the same numbers.
        matrices: What to measure.
        sources: How much each kind of position counts; None: as :class:`~kvw.measuring.sources.Sources` says.
        examples: Weights, folds, and whose coefficients are kept; None: equal weights, one fold, nobody's.
        dtype: Dtype of the sums.
        progress: Called after every batch.

    Returns:
        Moments and kept tokens, for every value matrix that saw any; of several processes each gets those of the value
        matrices that are scattered to it.

    Raises:
        UserError: A batch lacks labels, lists are too short, a value matrix outside the experts saw no token,
            coefficients are not finite, or memory runs out on a single example.
    """
    examples = examples or Examples()
    recorder = MomentRecorder(matrices, 1 + max(examples.folds) if examples.folds else 1, dtype)
    _run(model, batches, matrices, recorder, sources or Sources(), examples, progress)
    refuse_missed(matrices, recorder.moments)
    moments = _added(recorder, matrices, execution_device(model))
    tokens = _gathered(recorder, matrices)
    refuse_not_finite(matrices, moments, tokens)
    return moments, tokens


def measure_tokens(
    model: PreTrainedModel,
    batches: Iterable[Batch | SharedBatch],
    matrices: Sequence[ValueMatrix],
    *,
    weights: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> dict[MatrixKey, Tokens]:
    """Keep the coefficients of all examples at answer-predicting positions, and take no moments.

    Args:
        model, batches, matrices, progress: See :func:`measure_moments`.
        weights: Weight of every example; None: all 1.

    Returns:
        As :func:`measure_moments`.

    Raises:
        UserError: As :func:`measure_moments`.
    """
    recorder = MomentRecorder(matrices, 1, None)
    answers = Sources(answer=1, prompt=0, image=0, first=0)
    _run(model, batches, matrices, recorder, answers, Examples(weights, keep=every_example), progress)
    refuse_missed(matrices, recorder.kept)
    tokens = _gathered(recorder, matrices)
    refuse_not_finite(matrices, {}, tokens)
    return tokens


def _run(
    model: PreTrainedModel,
    batches: Iterable[Batch | SharedBatch],
    matrices: Sequence[ValueMatrix],
    recorder: MomentRecorder,
    sources: Sources,
    examples: Examples,
    progress: Progress | None,
) -> None:
    """Let the recorder see the batches that are scattered to this process."""
    processes = current()
    if isinstance(batches, LabelledBatches) and not shares_prefixes(model):
        batches = batches.unshared()  # an edit may have been attached since they were made
    total = len(batches) if isinstance(batches, Sequence) else 0
    if isinstance(batches, LabelledBatches):
        processes.agree({"batches": digest([(piece.rows, piece.tokens) for piece in batches.pieces])})
    run = shown_to(recorder, model, matrices, sources, examples)
    with watched(recorder, model, matrices):
        for done, _ in enumerate(processes.scatter(pieces_of(batches), run), 1):
            if progress:
                progress(done, total)


def shown_to(
    recorder: MomentRecorder,
    model: PreTrainedModel,
    matrices: Sequence[ValueMatrix],
    sources: Sources,
    examples: Examples,
) -> Callable[[Piece], object]:
    """A function that runs a batch so that the recorder sees it, in halves if memory runs out.

    Args:
        recorder: Recorder of these value matrices; to be :func:`watched` meanwhile.
        model: The model that they are of.
        matrices: What is measured.
        sources: How much each kind of position counts.
        examples: Weights, folds, and whose coefficients are kept.
    """
    examples, image_ids = replace(examples, keep=InOrder(examples.keep)), image_token_ids(model)

    def run(piece: Piece) -> None:
        batch = piece.batch()
        whole = batch.whole if isinstance(batch, SharedBatch) else batch
        plan = plan_of(whole, piece.first_row, sources, examples, image_ids)
        if isinstance(batch, SharedBatch):
            beginnings, endings = shared_plans(plan, batch)
            recorder.expect(beginnings, piece.taken.beginnings)
            cache = run_beginnings(model, batch)
            recorder.expect(endings, piece.taken.rows)
            run_endings(model, batch, cache)
        else:
            recorder.expect(plan, piece.taken.rows)
            run_model(model, {name: value for name, value in batch.items() if name != "labels"})

    return Halving(run, partial(_too_large, recorder, matrices))


@contextmanager
def watched(recorder: MomentRecorder, model: PreTrainedModel, matrices: Sequence[ValueMatrix]) -> Iterator[None]:
    """Let the recorder see what value matrices get, during the block. The model is in evaluation mode, without
    gradients."""
    with recorder.watching(matrices), evaluating(model):
        yield


def _too_large(recorder: MomentRecorder, matrices: Sequence[ValueMatrix], piece: Piece) -> UserError:
    """The error when memory runs out and the batch cannot be cut."""
    found, do = f"{piece.tokens} tokens", "use a device with more memory, a smaller data type, or smaller images"
    if piece.cut is None and piece.rows > 1:
        do = "make smaller batches; those of kvw.measuring.labelled.LabelledBatches are cut to fit by themselves"
    what = "on a single example" if piece.rows == 1 else f"on a batch of {piece.rows} examples"
    if (needed := recorder.needed) is None:
        return UserError(f"Memory ran out {what}.", found=found, do=do)
    layers = len({matrix.key.layer for matrix in matrices})
    moments = f"second moments of {layers} layers take {needed / 1e9:.3f} GB"
    if recorder.lacks_room:
        return UserError(
            "The second moments do not fit into memory.",
            found=moments,
            do=f"measure fewer layers in one pass: layers_per_pass below {layers}" if layers > 1 else do,
        )
    if layers > 1:
        do += f", or measure fewer layers in one pass: layers_per_pass below {layers}"
    return UserError(f"Memory ran out {what}.", found=f"{found}; {moments}", do=do)


def _added(recorder: MomentRecorder, matrices: Sequence[ValueMatrix], device: torch.device) -> dict[MatrixKey, Moment]:
    """The moments of all processes together, each in the process that its value matrix is scattered to."""
    processes, whole = current(), {}
    held = processes.all_gather({key: (moment.masses, moment.count) for key, moment in recorder.moments.items()})
    for number, matrix in enumerate(matrices):
        key, owner = matrix.key, processes.owner(number)
        having = [rank for rank, moments in enumerate(held) if key in moments]
        if not having:
            continue
        own = recorder.moments.pop(key, None)
        if own is None and processes.rank == owner:
            own = recorder.begun(matrix.width, device)
        processes.add(None if own is None else own.sums, having, owner)
        if own is not None and processes.rank == owner:
            masses = [held[rank][key][0] for rank in having]
            counts = [held[rank][key][1] for rank in having]
            whole[key] = Moment(own.sums, torch.stack(masses).sum(0), sum(counts))
    return whole


def _gathered(recorder: MomentRecorder, matrices: Sequence[ValueMatrix]) -> dict[MatrixKey, Tokens]:
    """The tokens of all processes, each in the process that its value matrix is scattered to."""
    processes, whole = current(), {}
    for number, matrix in enumerate(matrices):
        parts = processes.gather(recorder.kept.pop(matrix.key, []), processes.owner(number))
        if any(parts):
            whole[matrix.key] = Tokens.joined(part for share in parts for part in share)
    return whole
