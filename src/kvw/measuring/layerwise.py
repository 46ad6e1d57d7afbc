"""Measuring layer by layer: states wait in main memory, and one layer at a time runs over all of them.

Each layer runs once for each batch, and only its own second moments exist while it is measured. That the layers of a
model can be run by themselves is proven, not assumed: for the first batch of each kind, what reaches each layer on the
walk must be what an ordinary forward brought there, and in no batch may the model touch states between two layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvw.errors import UserError
from kvw.measuring.batch_sizing import Halving, out_of_memory
from kvw.measuring.checks import refuse_missed, refuse_not_finite
from kvw.measuring.engine import Batch, evaluating, not_finite, run_model
from kvw.measuring.labelled import LabelledBatches, Piece, pieces_of
from kvw.measuring.layer_calls import Entered, NotWalkable, enter, entering_states
from kvw.measuring.moment_recorder import MomentRecorder
from kvw.measuring.moments import Moment, Tokens
from kvw.measuring.plans import Examples, InOrder, Plan, every_example, plan_of
from kvw.measuring.prefixes import SharedBatch
from kvw.measuring.recorder import StopForward
from kvw.measuring.retain_rows import RetainRows, RowRecorder
from kvw.measuring.source_weights import image_token_ids
from kvw.measuring.sources import Sources
from kvw.models.layer_inputs import StatesArgument, decoder_layers
from kvw.models.placement import layer_device
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.progress import Progress

COMPARED_POSITIONS = 256
"""Positions of a batch that are compared in every layer. To compare all of them in 28 layers of a 7B model takes 4
GB."""
ROUNDINGS = 4
"""A walk that is not the forward bit for bit may differ by this many units of the dtype's rounding, relative to the
norm. It is the same kernels on the same numbers: only those that add in any order (atomic additions, in mixtures of
experts) may differ, by less than one rounding in each layer and in both directions. What a layer lacks is larger by
far."""


class Layers:
    """The decoder layers from the first to the last that is measured.

    Args:
        model: A loaded model.
        matrices: What is measured.
    """

    def __init__(self, model: PreTrainedModel, matrices: Sequence[ValueMatrix]) -> None:
        numbers = [matrix.key.layer for matrix in matrices]
        everything = decoder_layers(model)
        self.model = model
        self.first, self.last = min(numbers), max(numbers)
        self.modules: dict[int, nn.Module] = {number: everything[number] for number in range(self.first, self.last + 1)}
        self.arguments = {number: StatesArgument(layer, number) for number, layer in self.modules.items()}
        self.forms: dict[int, int] = {}
        self.proven: set[frozenset[str]] = set()

    def enter(self, batch: Batch) -> Entered:
        """Bring a batch to the first layer; the first of its kind is the proof that it can be walked on from there.

        Batches are of one kind if they hold tensors of the same names.

        Raises:
            NotWalkable: They cannot.
        """
        kind = frozenset(batch)
        if kind in self.proven:
            return enter(self.model, self.modules, self.forms, batch)
        seen = self._seen_by_a_forward(batch)
        try:
            entered = enter(self.model, self.modules, self.forms, batch)
            self._compare(batch, entered, seen)
        except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
            # What a layer raises that lacks something it is given by other layers in a forward.
            if out_of_memory(error):
                raise
            raise NotWalkable(f"{type(error).__name__}: {error}") from error
        self.proven.add(kind)
        return entered

    def step(self, entered: Entered, number: int, states: Tensor) -> Tensor:
        """Run one layer; a batch that does not pass it stays as it is."""
        call = entered.calls.get(number)
        if call is None:
            return states
        layer = self.modules[number]
        return call.run(layer, self.arguments[number], states, layer_device(layer))

    def _seen_by_a_forward(self, batch: Batch) -> dict[int, Tensor]:
        """Some of the states that enter each layer in an ordinary forward; remembers what layers return, too."""
        seen: dict[int, Tensor] = {}

        def look(number: int, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
            states = entering_states(self.arguments[number], inputs, named)
            seen[number] = _sample(states, batch)
            if number == self.last:
                raise StopForward

        def remember(number: int, output: object) -> None:
            if not isinstance(output, Tensor | tuple):
                raise NotWalkable(f"layer {number} returns a {type(output).__name__}")
            self.forms[number] = 0 if isinstance(output, Tensor) else len(output)

        with ExitStack() as hooks:
            for number, layer in self.modules.items():
                before = layer.register_forward_pre_hook(
                    lambda _, inputs, named, number=number: look(number, inputs, named), with_kwargs=True, prepend=True
                )
                after = layer.register_forward_hook(lambda _, __, output, number=number: remember(number, output))
                hooks.enter_context(before)
                hooks.enter_context(after)
            run_model(self.model, {name: value for name, value in batch.items() if name != "labels"})
        return seen

    def _compare(self, batch: Batch, entered: Entered, seen: Mapping[int, Tensor]) -> None:
        if entered.calls.keys() != seen.keys():
            raise NotWalkable("layers are called or not, depending on what others return")
        states = entered.states.clone()  # a layer may write into what it is given
        for number, expected in seen.items():
            if not _alike(_sample(states, batch), expected):
                raise NotWalkable(f"another state reaches layer {number} than in a forward of the whole model")
            if number < self.last:
                states = self.step(entered, number, states)


@dataclass
class _Waiting:
    entered: Entered
    plan: Plan
    first_row: int
    rows: int


class WaitingSet:
    """The batches of a set, all of them before the same layer.

    Args:
        layers: The layers that they are to pass.
        waiting: Them, before the first of the layers.
        examples: What is taken from which examples.
        progress: Called after every batch, with those done in the current layer and their total.

    Attributes:
        position: The layer that all batches wait for.
    """

    def __init__(
        self, layers: Layers, waiting: Sequence[_Waiting], examples: Examples, progress: Progress | None
    ) -> None:
        self._layers = layers
        self._waiting = waiting
        self._examples = examples
        self._progress = progress
        self.position = layers.first

    @classmethod
    def entered(
        cls,
        layers: Layers,
        batches: Iterable[Batch | SharedBatch],
        *,
        sources: Sources | None = None,
        examples: Examples | None = None,
        progress: Progress | None = None,
    ) -> WaitingSet:
        """Bring batches to the first of the layers.

        Args:
            layers: The layers that they are to pass.
            batches: See :data:`~kvw.measuring.engine.Batch`; gone through once. What questions about one image share
                runs for each of them here. Those of :class:`~kvw.measuring.labelled.LabelledBatches` are halved if
                memory runs out; the proof that the layers can be run alone brings the largest through all.
            sources: How much each kind of position counts; None: as :class:`~kvw.measuring.sources.Sources` says.
            examples: Weights, folds, and whose coefficients are kept; None: equal weights, one fold, nobody's.
            progress: Called after every batch, with those done in the current layer and their total (0 if unknown).

        Raises:
            NotWalkable: The model's layers cannot be run by themselves, or batches are shared beginnings and endings
                that cannot be taken apart.
            UserError: A batch lacks labels, there are more examples than weights or folds, or memory runs out on what
                cannot be halved.
        """
        plain = batches.unshared() if isinstance(batches, LabelledBatches) else batches
        total = len(plain) if isinstance(plain, Sequence) else 0
        image_ids, examples = image_token_ids(layers.model), examples or Examples()
        planned = replace(examples, keep=InOrder(examples.keep))
        waiting: list[_Waiting] = []

        def admit(piece: Piece) -> None:
            batch = piece.batch()
            if isinstance(batch, SharedBatch):
                raise NotWalkable("batches whose beginnings are shared")
            plan = plan_of(batch, piece.first_row, sources or Sources(), planned, image_ids)
            waiting.append(_Waiting(layers.enter(batch), plan, piece.first_row, piece.rows))

        run_halving = Halving(admit, _too_large)
        with evaluating(layers.model):
            for done, piece in enumerate(pieces_of(plain), 1):
                run_halving(piece)
                if progress:
                    progress(done, total)
        return cls(layers, waiting, examples, progress)

    @classmethod
    def of_tokens(
        cls,
        layers: Layers,
        batches: Iterable[Batch | SharedBatch],
        *,
        weights: Sequence[float] | None = None,
        progress: Progress | None = None,
    ) -> WaitingSet:
        """A set of which all coefficients at answer-predicting positions are kept."""
        answers = Sources(answer=1, prompt=0, image=0, first=0)
        kept = Examples(weights, keep=every_example)
        return cls.entered(layers, batches, sources=answers, examples=kept, progress=progress)

    @property
    def held_bytes(self) -> tuple[int, int]:
        """Bytes of the states, and of everything else that waits with them."""
        states = sum(waiting.entered.states.nbytes for waiting in self._waiting)
        rest = 0
        for waiting in self._waiting:
            plan = waiting.plan
            tensors = [*waiting.entered.tensors(), plan.weights, plan.kept, plan.rows, plan.offsets]
            rest += sum(tensor.nbytes for tensor in tensors)
        return states, rest

    def moments(self, matrices: Sequence[ValueMatrix]) -> tuple[dict[MatrixKey, Moment], dict[MatrixKey, Tokens]]:
        """Take second moments in one layer, and coefficients of some examples, while all batches pass it.

        Args:
            matrices: The value matrices of one layer, at or behind :attr:`position`.

        Returns:
            Moments, with sums in float32, and kept tokens, for every value matrix that saw any.

        Raises:
            UserError: See :func:`~kvw.measuring.moment_passes.measure_moments`.
        """
        folds = 1 + max(self._examples.folds) if self._examples.folds else 1
        recorder = MomentRecorder(matrices, folds, torch.float32, stops=self._is_last(matrices))
        self._pass(matrices, recorder, onwards=True)
        refuse_missed(matrices, recorder.moments)
        tokens = recorder.joined()
        refuse_not_finite(matrices, recorder.moments, tokens)
        return recorder.moments, tokens

    def rows(
        self, matrices: Sequence[ValueMatrix], limit: int
    ) -> tuple[dict[MatrixKey, RetainRows], dict[MatrixKey, Tokens]]:
        """Sample rows that stand for the second moments in one layer, and keep coefficients of some examples.

        Args:
            matrices: The value matrices of one layer, at or behind :attr:`position`.
            limit: Most rows of each.

        Raises:
            UserError: See :func:`~kvw.measuring.moment_passes.measure_moments`.
        """
        recorder = RowRecorder(matrices, limit, stops=self._is_last(matrices))
        self._pass(matrices, recorder, onwards=True)
        refuse_missed(matrices, recorder.samples)
        samples = recorder.finished()
        for matrix in matrices:
            if matrix.key in samples and not bool(samples[matrix.key].coefficients.isfinite().all()):
                raise not_finite(matrix.name)
        tokens = recorder.joined()
        refuse_not_finite(matrices, {}, tokens)
        return samples, tokens

    def tokens(self, matrices: Sequence[ValueMatrix], *, onwards: bool = True) -> dict[MatrixKey, Tokens]:
        """Keep coefficients in one layer, and take no moments.

        Args:
            matrices: The value matrices of one layer, at or behind :attr:`position`.
            onwards: Off: batches stay before the layer, so that they can pass it when it has been weakened.

        Raises:
            UserError: See :func:`~kvw.measuring.moment_passes.measure_tokens`.
        """
        recorder = MomentRecorder(matrices, 1, None, stops=not onwards or self._is_last(matrices))
        self._pass(matrices, recorder, onwards=onwards)
        refuse_missed(matrices, recorder.kept)
        tokens = recorder.joined()
        refuse_not_finite(matrices, {}, tokens)
        return tokens

    def go_on(self) -> None:
        """Let all batches pass the layer before which they wait, with whatever is attached to it."""
        with evaluating(self._layers.model), self._told_when_full(None):
            for waiting in self._waiting:
                self._move(waiting)
        self.position += 1

    @contextmanager
    def _told_when_full(self, recorder: MomentRecorder | None) -> Iterator[None]:
        """Say what to do when memory runs out in a layer."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            needed = recorder.needed if recorder and not isinstance(recorder, RowRecorder) else None
            moments = f"; its second moments take {needed / 1e9:.3f} GB" if needed is not None else ""
            raise UserError(
                f"Memory ran out in layer {self.position}.",
                found=f"{len(self._waiting)} batches wait in main memory{moments}",
                do="use a device with more memory, a smaller data type, or fewer retain examples"
                + (", or retain_rows, which needs no full second moments" if moments else ""),
            ) from error

    def _is_last(self, matrices: Sequence[ValueMatrix]) -> bool:
        return matrices[0].key.layer == self._layers.last

    def _pass(self, matrices: Sequence[ValueMatrix], recorder: MomentRecorder, *, onwards: bool) -> None:
        while self.position < matrices[0].key.layer:
            self.go_on()
        with recorder.watching(matrices), evaluating(self._layers.model), self._told_when_full(recorder):
            for done, waiting in enumerate(self._waiting, 1):
                if isinstance(recorder, RowRecorder):
                    recorder.expect_rows(waiting.plan, waiting.first_row, waiting.rows)
                else:
                    recorder.expect(waiting.plan)
                with suppress(StopForward):
                    self._move(waiting)
                if self._progress:
                    self._progress(done, len(self._waiting))
        if onwards:
            self.position += 1

    def _move(self, waiting: _Waiting) -> None:
        entered = waiting.entered
        entered.states = self._layers.step(entered, self.position, entered.states).cpu()
        entered.calls.pop(self.position, None)


def _too_large(piece: Piece) -> UserError:
    """The error when memory runs out before the first layer and the batch cannot be cut."""
    return UserError(
        f"Memory ran out on {'a single example' if piece.rows == 1 else f'a batch of {piece.rows} examples'}.",
        found=f"{piece.tokens} tokens",
        do="use a device with more memory, a smaller data type, smaller images or smaller batches",
    )


def _sample(states: Tensor, batch: Batch) -> Tensor:
    """Some of the states that belong to attended tokens, evenly from all rows: (n, hidden), on the CPU."""
    mask = batch.get("attention_mask")
    rows = states.flatten(0, 1)
    places = torch.arange(len(rows))
    if mask is not None and mask.shape == states.shape[:2]:
        places = mask.flatten().cpu().nonzero()[:, 0]
    stride = -(-len(places) // COMPARED_POSITIONS)
    return rows[places[::stride].to(rows.device)].cpu()


def _alike(walked: Tensor, expected: Tensor) -> bool:
    """Equal bit for bit, NaN at the same places included, or as close as rounding makes it."""
    if walked.shape != expected.shape:
        return False
    same = (walked == expected) | (walked.isnan() & expected.isnan())
    if bool(same.all()):
        return True
    walked, tolerance = walked.double(), ROUNDINGS * torch.finfo(expected.dtype).eps
    return float((walked - expected.double()).norm()) <= tolerance * float(expected.double().norm())
