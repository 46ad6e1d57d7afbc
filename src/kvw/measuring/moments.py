"""Second moments of coefficients, and the coefficients of a few tokens, in one forward pass for each batch."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.measuring.engine import Batch, evaluating, not_finite, run_model
from kvw.measuring.positions import predicting_positions
from kvw.measuring.prefixes import SharedBatch, run_beginnings, run_endings
from kvw.measuring.recorder import StopForward
from kvw.measuring.source_weights import image_token_ids, source_weights
from kvw.measuring.sources import SOURCES, Sources
from kvw.models.coefficients import Seen, intercept
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.progress import Progress


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


@dataclass(frozen=True)
class Moment:
    """Weighted sums of m m^T over the positions that one value matrix saw.

    Sums over disjoint data add up, so it does not matter how data is split over batches, passes or processes.

    Args:
        sums: Sum of w m m^T for each fold: (folds, width, width), on the device of the layer.
        masses: Sum of w for each fold and source: (folds, sources), float64, on the CPU.
        count: Positions with a weight.
    """

    sums: Tensor
    masses: Tensor
    count: int

    def __add__(self, other: Moment) -> Moment:
        return Moment(self.sums + other.sums.to(self.sums), self.masses + other.masses, self.count + other.count)

    @property
    def mean(self) -> Tensor:
        """C = E[m m^T]: (width, width), exactly symmetric."""
        total = self.sums.sum(0) / float(self.masses.sum())
        return (total + total.T) / 2

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


@dataclass(frozen=True)
class Plan:
    """What to take from the next forward.

    Args:
        weights: Of every token, fold by fold and source by source: (folds, sources, batch * tokens), float64.
        kept: Flat indices of the tokens whose coefficients are kept, ascending: (n,), int64.
        rows: The example of each kept token: (n,), int64.
        offsets: Which answer token each kept token predicts: (n,), int64.
        tokens: Batch size times sequence length.
    """

    weights: Tensor
    kept: Tensor
    rows: Tensor
    offsets: Tensor
    tokens: int


class MomentRecorder:
    """Takes second moments and single coefficients while a model runs.

    Args:
        matrices: What to measure.
        folds: How many folds there are.
        dtype: Of the sums; None takes no moments.
        stops: Whether the forward ends with the last value matrix.

    Attributes:
        moments: So far, for each value matrix that saw a position with a weight.
        kept: So far, for each value matrix.
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
        self.moments: dict[MatrixKey, Moment] = {}
        self.kept: dict[MatrixKey, list[Tokens]] = {}

    def expect(self, plan: Plan) -> None:
        """Announce the next forward."""
        self._plan = plan
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
        if len(plan.kept):
            number = torch.full((plan.tokens,), -1)
            number[plan.kept] = torch.arange(len(plan.kept))
            found = number[tokens]
            chosen, found = places[found >= 0], found[found >= 0]
            if not len(found):
                return
            weights = plan.weights[:, :, plan.kept[found]].sum((0, 1))
            values = coefficients.index_select(0, chosen.to(coefficients.device)).cpu()
            self.kept.setdefault(key, []).append(Tokens(values, plan.rows[found], plan.offsets[found], weights))

    def _accumulate(
        self, key: MatrixKey, dtype: torch.dtype, plan: Plan, coefficients: Tensor, places: Tensor, tokens: Tensor
    ) -> None:
        """Add the outer products of the rows at ``places``, which belong to ``tokens``."""
        weights = plan.weights[:, :, tokens]
        total = weights.sum(1)
        if not bool((total > 0).any()):
            return
        width, device = coefficients.shape[1], coefficients.device
        if key not in self.moments:
            sums = torch.zeros(self._folds, width, width, dtype=dtype, device=device)
            self.moments[key] = Moment(sums, torch.zeros(self._folds, len(SOURCES), dtype=torch.float64), 0)
        moment = self.moments[key]
        for fold in range(self._folds):
            wanted = (total[fold] > 0).nonzero()[:, 0]
            if not len(wanted):
                continue
            roots = total[fold, wanted].sqrt().to(device, dtype)
            chosen = coefficients.index_select(0, places[wanted].to(device)).to(dtype) * roots[:, None]
            moment.sums[fold].addmm_(chosen.T, chosen)
            moment.masses[fold] += weights[fold].sum(1)
        self.moments[key] = replace(moment, count=moment.count + int((total > 0).sum()))


def everyone(_: int) -> bool:
    """Keep the coefficients of every example."""
    return True


def nobody(_: int) -> bool:
    """Keep no example's coefficients."""
    return False


@dataclass(frozen=True)
class Examples:
    """What a pass takes from which examples, counted over all batches in the order in which they come.

    Args:
        weights: Weight of every example in the moments; None: all 1.
        folds: Fold of every example; None: all 0.
        keep: Whether to keep an example's coefficients at answer-predicting positions; asked once for each, in order.
    """

    weights: Sequence[float] | None = None
    folds: Sequence[int] | None = None
    keep: Callable[[int], bool] = nobody

    def check(self, count: int) -> None:
        """Refuse lists that are too short.

        Raises:
            UserError: There are more examples than weights or folds.
        """
        for name, values in (("weights", self.weights), ("folds", self.folds)):
            if values is not None and len(values) < count:
                raise UserError(f"There are more examples than {name}.", found=f"{len(values)} {name}")


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
        Moments and kept tokens, for every value matrix that saw any.

    Raises:
        UserError: A batch lacks labels, lists are too short, a value matrix outside the experts saw no token, or
            coefficients are not finite.
    """
    examples = examples or Examples()
    recorder = MomentRecorder(matrices, 1 + max(examples.folds) if examples.folds else 1, dtype)
    _run(model, batches, matrices, recorder, sources or Sources(), examples, progress)
    check_measured(recorder, matrices, recorder.moments)
    return recorder.moments, {key: joined(parts) for key, parts in recorder.kept.items()}


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

    Raises:
        UserError: As :func:`measure_moments`.
    """
    recorder = MomentRecorder(matrices, 1, None)
    answers = Sources(answer=1, prompt=0, image=0, first=0)
    _run(model, batches, matrices, recorder, answers, Examples(weights, keep=everyone), progress)
    check_measured(recorder, matrices, recorder.kept)
    return {key: joined(parts) for key, parts in recorder.kept.items()}


def _run(
    model: PreTrainedModel,
    batches: Iterable[Batch | SharedBatch],
    matrices: Sequence[ValueMatrix],
    recorder: MomentRecorder,
    sources: Sources,
    examples: Examples,
    progress: Progress | None,
) -> None:
    handles = intercept(matrices, recorder.observe, first=True)
    first_row, image_ids = 0, image_token_ids(model)
    total = len(batches) if isinstance(batches, Sequence) else 0
    try:
        with evaluating(model):
            for done, batch in enumerate(batches, 1):
                whole = batch.whole if isinstance(batch, SharedBatch) else batch
                plan = plan_of(whole, first_row, sources, examples, image_ids)
                first_row += len(whole["labels"])
                if isinstance(batch, SharedBatch):
                    beginnings, endings = _parts(plan, batch)
                    recorder.expect(beginnings)
                    cache = run_beginnings(model, batch)
                    recorder.expect(endings)
                    run_endings(model, batch, cache)
                else:
                    recorder.expect(plan)
                    run_model(model, {name: value for name, value in batch.items() if name != "labels"})
                if progress:
                    progress(done, total)
    finally:
        for handle in handles:
            handle.remove()


def plan_of(batch: Batch, first_row: int, sources: Sources, examples: Examples, image_ids: Sequence[int]) -> Plan:
    """What to take from a batch whose first example has this number; labels and lists that lack something raise."""
    predicting = predicting_positions(batch).cpu()
    rows, length = batch["labels"].shape
    examples.check(first_row + rows)
    numbers = range(first_row, first_row + rows)
    own_weights = torch.tensor([examples.weights[row] if examples.weights else 1.0 for row in numbers]).double()
    weights = source_weights(batch, sources, own_weights, image_ids)
    if examples.folds:
        own_folds = torch.tensor([examples.folds[row] for row in numbers]).repeat_interleave(length)
        folds = torch.arange(1 + max(examples.folds))
        weights = weights * (own_folds == folds[:, None])[:, None, :]
    else:
        weights = weights[None]
    keep = torch.tensor([examples.keep(row) for row in numbers])
    kept = predicting[keep[predicting // length]]
    own_row = kept // length
    starts = torch.searchsorted(own_row, own_row)
    return Plan(weights, kept, first_row + own_row, torch.arange(len(kept)) - starts, rows * length)


def _parts(plan: Plan, batch: SharedBatch) -> tuple[Plan, Plan]:
    """The plans of the beginnings, which count for all examples that share them, and of the endings."""
    rows, width = batch.endings.shape
    bundles, cut = batch.seen.shape
    folds, sources = plan.weights.shape[:2]
    weights = plan.weights.view(folds, sources, rows, cut + width)
    first = weights.new_zeros(folds, sources, bundles, cut).index_add_(2, batch.owners, weights[..., :cut])
    nothing = plan.kept[:0]
    own_row, place = plan.kept // (cut + width), plan.kept % (cut + width) - cut
    return (
        Plan(first.flatten(2), nothing, nothing, nothing, bundles * cut),
        Plan(weights[..., cut:].flatten(2), own_row * width + place, plan.rows, plan.offsets, rows * width),
    )


def check_measured(recorder: MomentRecorder, matrices: Sequence[ValueMatrix], reached: Container[MatrixKey]) -> None:
    """Raise a UserError where a value matrix outside the experts saw no token, or coefficients are not finite."""
    missed = [matrix.name for matrix in matrices if matrix.key.expert is None and matrix.key not in reached]
    if missed:
        raise UserError(
            "Some value matrices saw no token, so their coefficients are unknown.",
            found=", ".join(missed[:5]) + (", ..." if len(missed) > 5 else ""),
            do="check that labels hold the answer's token ids, or leave these layers out",
        )
    for matrix in matrices:
        moment, kept = recorder.moments.get(matrix.key), recorder.kept.get(matrix.key, [])
        finite = all(bool(tokens.coefficients.isfinite().all()) for tokens in kept)
        if moment is not None:
            finite &= all(bool(fold.diagonal().isfinite().all()) for fold in moment.sums)
        if not finite:
            raise not_finite(matrix.name)


def joined(parts: Sequence[Tokens]) -> Tokens:
    """Tokens of several batches as one."""
    return Tokens(
        torch.cat([part.coefficients for part in parts]),
        torch.cat([part.rows for part in parts]),
        torch.cat([part.offsets for part in parts]),
        torch.cat([part.weights for part in parts]),
    )
