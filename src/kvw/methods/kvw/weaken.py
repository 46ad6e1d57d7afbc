"""Knowledge Vector Weakening (Kim, Hwang, Cha and Choe, arXiv 2601.21794)."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.edit import Edit, EditMetadata
from kvw.edits.gates import GateEdit
from kvw.errors import UserError
from kvw.measuring import engine
from kvw.measuring.engine import Batch, evaluating, not_finite, run_batch
from kvw.measuring.given import Given, batches_given, measure
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.recorder import recording
from kvw.measuring.statistics import Statistics, accessor
from kvw.methods.kvw import METHOD
from kvw.methods.kvw.progressive import RoundedWeights, ScaledCoefficients
from kvw.methods.kvw.settings import KvwSettings
from kvw.models.finding import find_value_matrices, select_layers
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.processes import current
from kvw.progress import Progress


@dataclass(frozen=True)
class Step:
    """What happened in one progressive step, for those who watch.

    Args:
        number: 0-based.
        coefficients: C_f of the step's batches on the model as weakened so far: (width,), float64.
        gates: exp(-gamma A) of this step: (width,), float32.
    """

    number: int
    coefficients: Mapping[MatrixKey, Tensor]
    gates: Mapping[MatrixKey, Tensor]


def weaken(
    model: PreTrainedModel,
    forget: Given,
    retain: Given | Statistics | None,
    settings: KvwSettings | Mapping[str, Any] | None = None,
    *,
    processor: Any = None,
    on_step: Callable[[Step], None] | None = None,
    progress: Progress | None = None,
) -> Edit:
    """Find the knowledge vectors that carry the forget set and how much to weaken each; the model stays as it was.

    Several processes (:func:`kvw.processes.together`) share measuring. The first one does the progressive
    schedule, since each of its steps needs the one before, and the others get its edit.

    Args:
        model: A loaded model of a known family.
        forget: Examples, or batches, see :data:`kvw.measuring.given.Given`. Of examples and of :func:`kvw.batches`
            every example is a step of its own. Batches of the caller's own are a step each; they must be a sequence
            unless the seed is None, and iterable again for several epochs.
        retain: The same for the retain set, or its statistics from :func:`kvw.measure`; ignored (and may be None)
            without ``retain_contrast``.
        settings: :class:`KvwSettings`, or some of them by name; None for the defaults.
        processor: The model's processor or tokenizer, for examples.
        on_step: Called after every progressive step.
        progress: Called with the number of forget batches done and their total (0 if unknown).

    Returns:
        A :class:`~kvw.edits.gates.GateEdit`, or with ``parity`` a
        :class:`~kvw.edits.rounded_gates.RoundedGateEdit`.

    Raises:
        UserError: A setting, an example, a batch or the model is not usable; nothing was changed.
    """
    settings = METHOD.settings_from(settings)
    matrices = select_layers(find_value_matrices(model), settings.layers)
    layer_range = (matrices[0].key.layer, matrices[-1].key.layer)
    steps = _one_by_one(model, forget, processor)
    reference = _measured_retain(model, retain, settings, layer_range, processor)
    if settings.schedule == "one-shot":
        counted = _Counted(steps)
        measured = engine.measure(model, counted, layers=layer_range, positions=settings.positions, progress=progress)
        edit = one_shot(
            measured,
            reference,
            gamma=settings.gamma,
            steps=settings.steps(counted.count),
            min_tokens=settings.min_tokens,
        )
        recorded = asdict(settings) | edit.metadata.settings
        edit.metadata = edit.metadata.model_copy(update={"settings": recorded})
        return edit
    told = _also_to_waiting_processes(progress)
    return current().broadcast(lambda: _progressive(model, matrices, steps, reference, settings, on_step, told))


def _one_by_one(model: PreTrainedModel, forget: Given, processor: Any) -> Iterable[Batch]:
    """Examples one at a time; batches of the caller's own as they are."""
    batches = batches_given(model, forget, processor, "forget")
    return cast(Iterable[Batch], batches.one_by_one() if isinstance(batches, LabelledBatches) else batches)


def _measured_retain(
    model: PreTrainedModel,
    retain: Given | Statistics | None,
    settings: KvwSettings,
    layers: tuple[int, int],
    processor: Any,
) -> Statistics | None:
    """Statistics of the retain set; None for the ablation without it."""
    if not settings.retain_contrast:
        return None
    if isinstance(retain, Statistics):
        return retain
    if retain is None:
        raise UserError(
            "The retain set is missing.",
            do="give retain examples, batches or statistics, or set retain_contrast=False",
        )
    return measure(model, retain, processor=processor, layers=layers, positions=settings.positions)


def one_shot(
    forget: Statistics, retain: Statistics | None, *, gamma: float, steps: int, min_tokens: int = 16
) -> GateEdit:
    """Gates from whole-set statistics of the original model: g = exp(-gamma steps A).

    Independent of the order of the data, and free to repeat with another ``gamma``.

    Args:
        forget: Statistics of the forget set.
        retain: Statistics of the retain set; None for the ablation without it.
        gamma: Strength of a step.
        steps: How many steps the progressive schedule would take; it sets the scale of ``gamma``.
        min_tokens: See :class:`KvwSettings`.

    Raises:
        UserError: ``retain`` lacks a value matrix that ``forget`` has, or a setting makes no sense.
    """
    KvwSettings(gamma=gamma, min_tokens=min_tokens)
    reference = _reference(retain, list(forget.sums), min_tokens)
    weakened = [key for key in forget.sums if key in reference and _enough(forget.counts[key], key, min_tokens)]
    log_gates = {key: (-gamma * steps * accessor(forget.coefficients(key), reference[key])).float() for key in weakened}
    settings = {
        "gamma": gamma,
        "schedule": "one-shot",
        "layers": _range(forget.sums),
        "steps": steps,
        "min_tokens": min_tokens,
    }
    left_alone = _left_alone(forget.sums, log_gates)
    return GateEdit(log_gates, EditMetadata(method="kvw", settings=settings, left_alone=left_alone))


def _progressive(
    model: PreTrainedModel,
    matrices: Sequence[ValueMatrix],
    forget_batches: Iterable[Batch],
    retain: Statistics | None,
    settings: KvwSettings,
    on_step: Callable[[Step], None] | None,
    progress: Progress,
) -> Edit:
    keys = [matrix.key for matrix in matrices]
    reference = _reference(retain, keys, settings.min_tokens)
    total = len(forget_batches) * settings.epochs if isinstance(forget_batches, Sequence) else 0
    steps = done = 0
    tokens: Counter[MatrixKey] = Counter()
    with evaluating(model), recording(matrices) as recorder:
        weakening = RoundedWeights(matrices) if settings.parity else ScaledCoefficients(matrices, recorder)
        with weakening:
            for step in _steps(forget_batches, settings):
                recorder.restart()
                for batch in step:
                    run_batch(model, recorder, batch, settings.positions)
                done += len(step)
                tokens.update(recorder.counts)
                # A matrix that saw no answer in this step is left as it is.
                coefficients = {
                    key: sums / recorder.counts[key]
                    for key, sums in recorder.sums.items()
                    if recorder.counts[key] and key in reference and _enough(tokens[key], key, settings.min_tokens)
                }
                # log g = -gamma A, (width,); steps add up
                exponents = {
                    key: -settings.gamma * accessor(value, _to(reference[key], value))
                    for key, value in coefficients.items()
                }
                _check_finite(exponents, matrices)
                weakening.step(exponents)
                if on_step:
                    on_step(Step(steps, coefficients, {key: value.float().exp() for key, value in exponents.items()}))
                steps += 1
                progress(done, total)
            recorded = {**asdict(settings), "layers": _range(keys), "steps": steps}
            edit = weakening.edit(EditMetadata(method="kvw", settings=recorded))
    edit.metadata = edit.metadata.model_copy(update={"left_alone": _left_alone(keys, edit.widths)})
    if not tokens.total():
        raise UserError(
            "No position of the forget set predicts an answer token, so nothing would be weakened.",
            found=f"{done} batches, every label -100" if done else "no batch",
            do="check that labels hold the answer's token ids",
        )
    return edit


def _also_to_waiting_processes(progress: Progress | None) -> Progress:
    def report(done: int, total: int) -> None:
        current().working()
        if progress:
            progress(done, total)

    return report


def _reference(retain: Statistics | None, keys: Sequence[MatrixKey], min_tokens: int) -> dict[MatrixKey, Tensor | None]:
    """C_r of the value matrices that may be weakened; None where there is no retain set."""
    if retain is None:
        return dict.fromkeys(keys)
    missing = [str(key) for key in keys if key.expert is None and key not in retain.sums]
    if missing:
        raise UserError(
            "The retain statistics do not cover the layers to be weakened.",
            found=f"missing {', '.join(missing[:5])}",
            do="measure the retain set again over these layers",
        )
    return {key: retain.coefficients(key) for key in keys if _enough(retain.counts.get(key, 0), key, min_tokens)}


def _enough(tokens: int, key: MatrixKey, min_tokens: int) -> bool:
    """Whether a mean over ``tokens`` tokens may decide about a value matrix; outside experts any number will do."""
    return key.expert is None or tokens >= min_tokens


def _left_alone(keys: Iterable[MatrixKey], edited: Container[MatrixKey]) -> tuple[str, ...]:
    return tuple(str(key) for key in sorted(keys, key=lambda key: key.order) if key not in edited)


def _check_finite(exponents: Mapping[MatrixKey, Tensor], matrices: Sequence[ValueMatrix]) -> None:
    if not exponents:
        return
    # All flags on one device, so that a step waits for it once.
    device = next(iter(exponents.values())).device
    finite = torch.stack([value.isfinite().all().to(device) for value in exponents.values()])
    if not finite.all():
        names = {matrix.key: matrix.name for matrix in matrices}
        raise not_finite(next(names[key] for key, value in exponents.items() if not value.isfinite().all()))


def _range(keys: Iterable[MatrixKey]) -> tuple[int, int]:
    layers = [key.layer for key in keys]
    return min(layers), max(layers)


def _steps(batches: Iterable[Batch], settings: KvwSettings) -> Iterator[list[Batch]]:
    """The forget batches step by step; the last step of an epoch may be short."""
    if settings.epochs > 1 and iter(batches) is batches:
        raise UserError(
            "Several epochs need forget batches that can be gone through again.",
            found=type(batches).__name__,
            do="pass a list or a data loader instead of an iterator",
        )
    shuffle = random.Random(settings.seed)
    for _ in range(settings.epochs):
        epoch = iter(batches if settings.seed is None else _shuffled(batches, shuffle))
        while step := list(itertools.islice(epoch, settings.update_every)):
            yield step


def _shuffled(batches: Iterable[Batch], shuffle: random.Random) -> Iterator[Batch]:
    if not isinstance(batches, Sequence):
        raise UserError(
            "Shuffling needs the forget batches as a sequence.",
            found=type(batches).__name__,
            do="pass a list, or set seed to None, which keeps the order of the loader",
        )
    for index in shuffle.sample(range(len(batches)), len(batches)):
        yield batches[index]


def _to(reference: Tensor | None, like: Tensor) -> Tensor | None:
    return None if reference is None else reference.to(like.device, like.dtype)


class _Counted:
    """Counts the batches that pass through."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = batches
        self.count = 0

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            self.count += 1
            yield batch
