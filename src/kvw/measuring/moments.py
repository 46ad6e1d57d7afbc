"""Second moments of coefficients, and the coefficients of a few tokens, in one forward pass for each batch."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.measuring.checks import refuse_missed, refuse_not_finite
from kvw.measuring.engine import Batch, evaluating, run_model
from kvw.measuring.fingerprint import digest
from kvw.measuring.fitting import Halving
from kvw.measuring.labelled import LabelledBatches, Piece, pieces_of
from kvw.measuring.plans import Examples, InOrder, Plan, everyone, plan_of, shared_plans
from kvw.measuring.prefixes import SharedBatch, run_beginnings, run_endings
from kvw.measuring.recorder import StopForward
from kvw.measuring.source_weights import image_token_ids
from kvw.measuring.sources import SOURCES, Sources
from kvw.models.coefficients import Seen, intercept
from kvw.models.placement import execution_device
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.processes import current
from kvw.progress import Progress

STRIPS, NARROWEST = 8, 128
"""Second moments are added up in so many strips of rows, none narrower than that."""


@dataclass(frozen=True)
class Tokens:
    """Coefficients of one value matrix at answer-predicting positions.

    Args:
        coefficients: (n, width), in the model's dtype, on the CPU.
        rows: The example of each: (n,), int64, counted over all batches in the order in which they came.
        offsets: Which answer token each predicts, from 0: (n,), int64.
        weights: What each weighs in the second moment of its set: (n,), float64.
    """

    coefficients: Tensor
    rows: Tensor
    offsets: Tensor
    weights: Tensor

    def chosen(self, wanted: Tensor) -> Tokens:
        """Those tokens alone: a mask or indices."""
        return Tokens(self.coefficients[wanted], self.rows[wanted], self.offsets[wanted], self.weights[wanted])

    @classmethod
    def joined(cls, parts: Iterable[Tokens]) -> Tokens:
        """The tokens of different examples, in the order of the examples."""
        ordered = sorted(parts, key=lambda part: int(part.rows[0]))
        names = ("coefficients", "rows", "offsets", "weights")
        return cls(*(torch.cat([getattr(part, name) for part in ordered]) for name in names))


@dataclass(frozen=True)
class Moment:
    """Weighted sums of m m^T over the positions that one value matrix saw.

    Sums over disjoint data add up, so it does not matter how data is split over batches, passes or processes.

    Args:
        sums: Sum of w m m^T for each fold: (folds, width, width), on the device of the layer. What lies below the
            diagonal means nothing: the other half says it.
        masses: Sum of w for each fold and source: (folds, sources), float64, on the CPU.
        count: Positions with a weight; one that several examples of a batch share counts once.
    """

    sums: Tensor
    masses: Tensor
    count: int

    def __add__(self, other: Moment) -> Moment:
        return Moment(self.sums + other.sums.to(self.sums), self.masses + other.masses, self.count + other.count)

    @property
    def mean(self) -> Tensor:
        """C = E[m m^T]: (width, width), exactly symmetric."""
        upper = (self.sums.sum(0) / float(self.masses.sum())).triu_()
        return upper + upper.triu(1).T

    @property
    def folds(self) -> list[Tensor]:
        """C of each fold that has seen anything: (width, width) each."""
        return [replace(self, sums=self.sums[i : i + 1], masses=self.masses[i : i + 1]).mean for i in self._seen]

    @property
    def shares(self) -> dict[str, float]:
        """What share of C each source has."""
        by_source = self.masses.sum(0)
        return dict(zip(SOURCES, (by_source / by_source.sum()).tolist(), strict=True))

    def shares_of(self, tokens: Tokens) -> Tensor:
        """What share of C each token of this set has: (tokens,), float64."""
        return tokens.weights / self.masses.sum()

    @property
    def _seen(self) -> list[int]:
        return [fold for fold, mass in enumerate(self.masses.sum(1).tolist()) if mass > 0]


class MomentRecorder:
    """Takes second moments and single coefficients while a model runs.

    Args:
        matrices: What to measure.
        folds: How many folds there are.
        dtype: Of the sums; None takes no moments.
        stops: Whether the forward ends with the last value matrix.

    Attributes:
        moments: So far, for each value matrix that saw a position with a weight.
        kept: So far, for each value matrix, part by part.
        needed: Bytes of the second moments of all value matrices; None if none are taken.
        lacks_room: Whether memory ran out when a second moment was to be begun.
    """

    def __init__(
        self, matrices: Sequence[ValueMatrix], folds: int, dtype: torch.dtype | None, *, stops: bool = True
    ) -> None:
        last = max(matrix.key.layer for matrix in matrices)
        self._last = {id(matrix.module) for matrix in matrices if matrix.key.layer == last}
        self._awaited = set(self._last)
        self._folds = folds
        self._dtype = dtype
        self._stops = stops
        self._plan: Plan | None = None
        self._before: frozenset[Hashable] = frozenset()
        squares = sum(matrix.width**2 for matrix in matrices)
        self.needed = None if dtype is None else folds * squares * dtype.itemsize
        self.lacks_room = False
        self.moments: dict[MatrixKey, Moment] = {}
        self.kept: dict[MatrixKey, list[Tokens]] = {}

    def joined(self) -> dict[MatrixKey, Tokens]:
        """What was kept of each value matrix, as one."""
        return {key: Tokens.joined(parts) for key, parts in self.kept.items()}

    def expect(self, plan: Plan) -> None:
        """Announce the next forward."""
        self._plan = plan
        self._before = frozenset(plan.taken)
        self._awaited = set(self._last)

    def observe(self, seen: Seen) -> None:
        """Take in the input of a value projection.

        Raises:
            UserError: The decoder sees another number of tokens than was announced.
            StopForward: Everything in the last layer has been seen, unless it was told to go on.
        """
        plan = self._plan
        if plan is None:
            raise RuntimeError("a forward that was not announced")
        coefficients = seen.coefficients.reshape(-1, seen.matrices[0].width)
        if seen.tokens is None and len(coefficients) != plan.tokens:
            raise UserError(
                f"{seen.matrices[0].name} sees {len(coefficients)} tokens where the batch has {plan.tokens}.",
                do="pass input_ids in which every image placeholder is already expanded, "
                "as the model's processor returns them",
            )
        tokens = torch.arange(plan.tokens) if seen.tokens is None else seen.tokens.cpu()
        experts = torch.zeros_like(tokens) if seen.experts is None else seen.experts.cpu()
        for index, matrix in enumerate(seen.matrices):
            own = slice(None) if seen.experts is None else (experts == index).nonzero()[:, 0]
            if len(tokens[own]):
                self._take(matrix.key, plan, coefficients, torch.arange(len(tokens))[own], tokens[own])
        self._awaited.discard(id(seen.matrices[0].module))
        if self._stops and not self._awaited:
            raise StopForward

    def _take(self, key: MatrixKey, plan: Plan, coefficients: Tensor, places: Tensor, tokens: Tensor) -> None:
        """Take in what one value matrix saw: the rows at ``places``, which belong to ``tokens``."""
        if self._dtype is not None:
            self._accumulate(key, self._dtype, plan, coefficients, places, tokens)
        if len(plan.kept) and (key, "tokens") not in self._before:
            number = torch.full((plan.tokens,), -1)
            number[plan.kept] = torch.arange(len(plan.kept))
            found = number[tokens]
            chosen, found = places[found >= 0], found[found >= 0]
            if not len(found):
                return
            weights = plan.weights[:, :, plan.kept[found]].sum((0, 1))
            values = coefficients.index_select(0, chosen.to(coefficients.device)).cpu()
            self.kept.setdefault(key, []).append(Tokens(values, plan.rows[found], plan.offsets[found], weights))
            plan.taken.add((key, "tokens"))

    def _accumulate(
        self, key: MatrixKey, dtype: torch.dtype, plan: Plan, coefficients: Tensor, places: Tensor, tokens: Tensor
    ) -> None:
        """Add the outer products of the rows at ``places``, which belong to ``tokens``."""
        weights = plan.weights[:, :, tokens]
        total = weights.sum(1)
        if not bool((total > 0).any()):
            return
        width, device = coefficients.shape[1], coefficients.device
        moment = self.moments.get(key) or self.begun(width, device)
        for fold in range(self._folds):
            wanted = (total[fold] > 0).nonzero()[:, 0]
            if not len(wanted) or (key, fold) in self._before:
                continue
            roots = total[fold, wanted].sqrt().to(device, dtype)
            chosen = coefficients.index_select(0, places[wanted].to(device)).to(dtype) * roots[:, None]
            _add_upper(moment.sums[fold], chosen)
            moment.masses[fold] += weights[fold].sum(1)
            moment = replace(moment, count=moment.count + len(wanted))
            self.moments[key] = moment
            plan.taken.add((key, fold))

    def begun(self, width: int, device: torch.device) -> Moment:
        """A second moment that has seen nothing."""
        self.lacks_room = True
        sums = torch.zeros(self._folds, width, width, dtype=self._dtype, device=device)
        self.lacks_room = False
        return Moment(sums, torch.zeros(self._folds, len(SOURCES), dtype=torch.float64), 0)


def _add_upper(total: Tensor, rows: Tensor) -> None:
    """Add rows^T rows on and above the diagonal, strip by strip: little more than half of the work."""
    width = len(total)
    strips = max(1, min(STRIPS, width // NARROWEST))
    edges = [width * strip // strips for strip in range(strips + 1)]
    for begin, end in pairwise(edges):
        total[begin:end, begin:].addmm_(rows[:, begin:end].T, rows[:, begin:])


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

    Several processes (:func:`kvw.processes.together`) deal the batches among them. Each adds up a share of all moments,
    and at the end the shares of each value matrix are added, in the order of the processes, in the one that
    :meth:`~kvw.processes.Processes.deal` gives it to. That is the result of one process up to float32 rounding and not
    to the bit: other sums are formed first. (The order of the batches could only be kept by sending the moments of
    every batch, gigabytes each time.) Tokens are gathered in the order of the examples, and are those of one process.

    Args:
        model: A loaded model; an edit attached to it is in force in the layers before each.
        batches: See :data:`~kvw.measuring.engine.Batch`; any padding, any batch size. Or shared beginnings and
            endings, to the same numbers.
        matrices: What to measure.
        sources: How much each kind of position counts; None: as :class:`~kvw.measuring.sources.Sources` says.
        examples: Weights, folds, and whose coefficients are kept; None: equal weights, one fold, nobody's.
        dtype: Of the sums.
        progress: Called after every batch.

    Returns:
        Moments and kept tokens, for every value matrix that saw any; of several processes each gets those of the value
        matrices that are dealt to it.

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
    _run(model, batches, matrices, recorder, answers, Examples(weights, keep=everyone), progress)
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
    """Let the recorder see the batches that are dealt to this process."""
    examples = replace(examples, keep=InOrder(examples.keep))
    image_ids, processes = image_token_ids(model), current()
    total = len(batches) if isinstance(batches, Sequence) else 0
    if isinstance(batches, LabelledBatches):
        processes.agree({"batches": digest([(piece.rows, piece.tokens) for piece in batches.pieces])})

    def run(piece: Piece) -> None:
        batch = piece.batch()
        whole = batch.whole if isinstance(batch, SharedBatch) else batch
        plan = plan_of(whole, piece.first_row, sources, examples, image_ids)
        if isinstance(batch, SharedBatch):
            beginnings, endings = shared_plans(plan, batch)
            recorder.expect(replace(beginnings, taken=piece.taken.beginnings))
            cache = run_beginnings(model, batch)
            recorder.expect(replace(endings, taken=piece.taken.rows))
            run_endings(model, batch, cache)
        else:
            recorder.expect(replace(plan, taken=piece.taken.rows))
            run_model(model, {name: value for name, value in batch.items() if name != "labels"})

    fitted = Halving(run, partial(_too_large, recorder, matrices))
    handles = intercept(matrices, recorder.observe, first=True)
    try:
        with evaluating(model):
            for done, _ in enumerate(processes.deal(pieces_of(batches), fitted), 1):
                if progress:
                    progress(done, total)
    finally:
        for handle in handles:
            handle.remove()


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
    """The moments of all processes together, each in the process that its value matrix is dealt to."""
    processes, whole = current(), {}
    held = processes.everyone({key: (moment.masses, moment.count) for key, moment in recorder.moments.items()})
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
    """The tokens of all processes, each in the process that its value matrix is dealt to."""
    processes, whole = current(), {}
    for number, matrix in enumerate(matrices):
        parts = processes.gather(recorder.kept.pop(matrix.key, []), processes.owner(number))
        if any(parts):
            whole[matrix.key] = Tokens.joined(part for share in parts for part in share)
    return whole
