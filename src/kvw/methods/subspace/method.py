"""Subspace weakening: measure, solve, weaken; see docs/methods/subspace.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.low_rank import Directions, LowRankEdit
from kvw.errors import UserError
from kvw.measuring.engine import Batch
from kvw.measuring.given import Given, batches_given
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.layer_calls import NotWalkable
from kvw.measuring.layerwise import Layers, WaitingSet
from kvw.measuring.moment_passes import measure_moments, measure_tokens
from kvw.measuring.moments import Moment, Tokens
from kvw.measuring.plans import Examples
from kvw.measuring.prefixes import SharedBatch
from kvw.methods.bounds import DistortionBounds
from kvw.methods.earlier import Earlier
from kvw.methods.subspace import METHOD
from kvw.methods.subspace.earlier import joined_by, with_earlier
from kvw.methods.subspace.instead import refused_coefficients
from kvw.methods.subspace.labels import EverySoManyth, Labels, labels_of
from kvw.methods.subspace.paths import chosen_path, layers_that_fit
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.methods.subspace.solution import UNLABELLED, Measured, Solution, handed_out
from kvw.models.finding import find_value_matrices, in_layers
from kvw.models.parts import Part
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.progress import Progress, warn

FEWEST_VIEWS = 3
"""Every third view of a fact is held out."""


def subspace(
    model: PreTrainedModel,
    forget: Given,
    retain: Given,
    settings: SubspaceSettings | Mapping[str, Any] | None = None,
    *,
    processor: Any = None,
    forget_labels: Labels | None = None,
    retain_labels: Labels | None = None,
    known: Mapping[MatrixKey, Moment] | None = None,
    earlier: Sequence[Earlier] = (),
    instead: Mapping[MatrixKey, Tensor] | None = None,
    on_matrix: Callable[[DistortionBounds], None] | None = None,
    on_warning: Callable[[str], None] = warn,
    progress: Progress | None = None,
) -> LowRankEdit:
    """Find the directions that carry the forget set and not the retain set, and weaken them as the settings say.

    :func:`kvw.find_edit` chooses the strength. Nothing depends on padding or batches. Several processes
    (:func:`kvw.processes.together`) share the work, and all get the edit of one process up to rounding.

    Args:
        model: A loaded model of a known family.
        forget: Examples, or batches, which must be iterable again if there are several passes over the whole model.
        retain: The same of the retain set. Ask it in the form in which the forget set is asked.
        settings: See :class:`~kvw.methods.subspace.settings.SubspaceSettings`; or some of them by name.
        processor: The model's processor or tokenizer, for examples.
        forget_labels: Facts and subjects of the forget examples, in the order in which they run; None: as examples and
            :func:`kvw.batches` name their subjects.
        retain_labels: The same of the retain examples.
        known: Second moments of further retain examples, in the weights of ``retain``, which may then be empty; on the
            path of the whole model.
        earlier: Earlier requests to be forgotten with this one, whose data are gone. Only on the joint schedule.
        instead: What :func:`~kvw.methods.subspace.instead.refused_coefficients` measured; None to measure it.
        on_matrix: Gets what was found for each value matrix.
        on_warning: Gets told of a slower path, and of sets that can hardly be told apart. By default a
            :class:`UserWarning` says it.
        progress: Called with batches done in the current pass and their total (0 if unknown).

    Returns:
        The edit: directions for every value matrix in range, none (rank 0) where nothing stands out.

    Raises:
        UserError: A setting, an example, a batch, a label or the model is not usable; nothing was changed.
    """
    settings = METHOD.settings_from(settings)
    forget = batches_given(model, forget, processor, "forget")
    retain = batches_given(model, retain, processor, "retain")
    forget_labels, retain_labels = labels_for(forget, forget_labels), labels_for(retain, retain_labels)
    all_labels = with_earlier(forget_labels, earlier)
    check_views(settings, all_labels)
    matrices = matrices_in(model, settings)
    data = _Data(model, forget, retain, forget_labels, retain_labels, known or {}, progress)
    check_earlier(earlier, matrices, settings)
    if settings.instead == "refusal" and instead is None:
        instead = refused_coefficients(model, processor, matrices)
    solution = Solution(settings, all_labels, retain_labels, on_matrix, instead)
    for group, measured in _everything(data, matrices, solution.directions, settings, on_warning):
        solution.solve(group, joined_by(measured, forget_labels, earlier))
    return solution.edit(matrices, on_warning)


def labels_for(batches: Iterable[Batch | SharedBatch], given: Labels | None) -> Labels:
    """The labels that were given, or those that the examples of batches name themselves.

    Raises:
        UserError: Some of the examples name their subject and others do not.
    """
    if given is not None:
        return given
    return labels_of(batches.examples) if isinstance(batches, LabelledBatches) else UNLABELLED


@dataclass(frozen=True)
class _Data:
    model: PreTrainedModel
    forget: Iterable[Batch | SharedBatch]
    retain: Iterable[Batch | SharedBatch]
    forget_labels: Labels
    retain_labels: Labels
    known: Mapping[MatrixKey, Moment]
    progress: Progress | None


def _everything(
    data: _Data,
    matrices: Sequence[ValueMatrix],
    directions: dict[MatrixKey, Directions],
    settings: SubspaceSettings,
    on_warning: Callable[[str], None],
) -> Iterator[tuple[Sequence[ValueMatrix], Measured]]:
    """What value matrices saw, group by group, on one path or the other; ``directions`` are those found so far."""
    groups = passes(matrices, settings)
    if chosen_path(data.model, matrices, settings) == "layer by layer":
        if data.known:
            raise ValueError("known second moments do not go with the path layer by layer")
        try:
            sets = _waiting(data, matrices, settings)
        except NotWalkable as error:
            if settings.path is not None or settings.retain_rows is not None:
                raise
            groups = passes_instead(data.model, matrices, settings)
            on_warning(f"Measured in {len(groups)} passes over the whole model, not layer by layer: {error.found}.")
        else:
            yield from _layer_by_layer(data, sets, matrices, directions, settings)
            return
    if len(groups) > 1:
        check_repeatable({"forget": data.forget, "retain": data.retain})
    for group in groups:
        yield group, _measured(data, group, directions, settings)


def _waiting(data: _Data, matrices: Sequence[ValueMatrix], settings: SubspaceSettings) -> tuple[WaitingSet, WaitingSet]:
    """The retain and the forget set before the first layer."""
    layers = Layers(data.model, matrices)
    examples = _retained(data.retain_labels, settings)
    retain = WaitingSet.entered(
        layers, data.retain, sources=settings.sources, examples=examples, progress=data.progress
    )
    weights = data.forget_labels.weights()
    return retain, WaitingSet.of_tokens(layers, data.forget, weights=weights, progress=data.progress)


def _layer_by_layer(
    data: _Data,
    sets: tuple[WaitingSet, WaitingSet],
    matrices: Sequence[ValueMatrix],
    directions: dict[MatrixKey, Directions],
    settings: SubspaceSettings,
) -> Iterator[tuple[Sequence[ValueMatrix], Measured]]:
    """Measure one layer after the other; sequentially, the forget set passes each when it has been weakened."""
    retain, forget = sets
    joint = settings.schedule == "joint"
    groups = passes(matrices, settings, 1)
    for group in groups:
        rows = settings.retain_rows
        moments, null = retain.moments(group) if rows is None else retain.rows(group, rows)
        tokens = forget.tokens(group, onwards=joint)
        yield group, handed_out(moments, tokens, null, settings)
        if not joint and group is not groups[-1]:
            own = {matrix.key: directions[matrix.key] for matrix in group if matrix.key in directions}
            with _weakened_so_far(data.model, own, settings):
                forget.go_on()


def _measured(
    data: _Data, group: Sequence[ValueMatrix], directions: dict[MatrixKey, Directions], settings: SubspaceSettings
) -> Measured:
    """Run both sets over the whole model; in each process for the value matrices that are scattered to it."""
    moments: dict[MatrixKey, Moment] = {}
    null: dict[MatrixKey, Tokens] = {}
    if not (data.known and isinstance(data.retain, Sequence) and not data.retain):
        moments, null = measure_moments(
            data.model,
            data.retain,
            group,
            sources=settings.sources,
            examples=_retained(data.retain_labels, settings),
            progress=data.progress,
        )
    for matrix in group:
        if (more := data.known.get(matrix.key)) is not None:
            own = moments.get(matrix.key)
            moments[matrix.key] = more if own is None else own + more
    with _weakened_so_far(data.model, directions, settings):
        weights = data.forget_labels.weights()
        tokens = measure_tokens(data.model, data.forget, group, weights=weights, progress=data.progress)
    return handed_out(moments, tokens, null, settings)


class Range(Protocol):
    """Settings that say which matrices of which layers are measured, and how many layers in one pass (None: all)."""

    @property
    def layers(self) -> tuple[int, int] | None: ...  # noqa: D102

    @property
    def matrices(self) -> Part: ...  # noqa: D102

    @property
    def layers_at_once(self) -> int | None: ...  # noqa: D102


def matrices_in(model: PreTrainedModel, settings: Range) -> list[ValueMatrix]:
    """The value matrices that are to be weakened.

    The attention of the first layer is not among them: it gathers embeddings of single tokens, and its directions are
    words and patches that others use, too. Leaving it out keeps more at equal forgetting (docs/results.md).

    Raises:
        UserError: The model does not have these layers, no attention that kvw knows, or nothing is left.
    """
    chosen = in_layers(find_value_matrices(model, settings.matrices), settings.layers)
    if not (chosen := [matrix for matrix in chosen if matrix.key != MatrixKey(0, attention=True)]):
        raise UserError(
            "There is nothing to weaken: the attention of the first layer is not changed.",
            found=f"matrices {settings.matrices}, layers {settings.layers}",
            do="add layers, or weaken its FFN (matrices=ffn)",
        )
    return chosen


def passes(matrices: Sequence[ValueMatrix], settings: Range, size: int | None = None) -> list[list[ValueMatrix]]:
    """The value matrices that are measured together, whole layers each; ``size`` layers if it is given.

    In each the widest come first: processes take them in turns, and a turn lasts as long as its widest.
    """
    layers = sorted({matrix.key.layer for matrix in matrices})
    size = size or settings.layers_at_once or len(layers)
    chunks = [set(layers[start : start + size]) for start in range(0, len(layers), size)]
    return [
        sorted((matrix for matrix in matrices if matrix.key.layer in chunk), key=lambda matrix: -matrix.width)
        for chunk in chunks
    ]


def passes_instead(
    model: PreTrainedModel, matrices: Sequence[ValueMatrix], settings: SubspaceSettings
) -> list[list[ValueMatrix]]:
    """The passes over a whole model whose layers cannot be run by themselves: as few as free memory allows."""
    if settings.schedule == "sequential":
        return passes(matrices, settings)
    return passes(matrices, settings, layers_that_fit(model, matrices, settings))


def _retained(labels: Labels, settings: SubspaceSettings) -> Examples:
    folds = labels.folds() if isinstance(settings.shrinkage, str) else None
    return Examples(labels.weights(), folds, EverySoManyth(labels, settings.null_every))


def _weakened_so_far(
    model: PreTrainedModel, directions: dict[MatrixKey, Directions], settings: SubspaceSettings
) -> AbstractContextManager[Any]:
    if settings.schedule == "joint" or not directions:
        return nullcontext()
    return LowRankEdit(directions, settings.strength).attach(model)


def check_views(settings: SubspaceSettings, forget: Labels) -> None:
    """Refuse settings that hold views of facts out where there are too few.

    Raises:
        UserError: Some fact has fewer than three.
    """
    holding = {"held_out_ratio": settings.held_out_ratio > 0, "shrinkage": settings.folds > 1}
    wanting = [name for name, holds in holding.items() if holds]
    views = Counter(forget.facts or ()).values()
    if wanting and min(views, default=1) < FEWEST_VIEWS:
        raise UserError(
            f"Setting {wanting[0]} holds out views of every forget fact, and needs three of each.",
            found=f"{sum(count < FEWEST_VIEWS for count in views)} of {len(views)} facts with fewer"
            if views
            else "no facts: without 'subject' in the data every example is a fact of its own",
            do="give three photos or phrasings of each fact and name its subject, or leave the setting out",
        )


def check_earlier(earlier: Sequence[Earlier], matrices: Sequence[ValueMatrix], settings: SubspaceSettings) -> None:
    """Refuse what earlier requests cannot give.

    Raises:
        UserError: A value matrix was not measured on one of them, or coefficients of a weakened model are needed.
    """
    if earlier and settings.schedule == "sequential":
        raise UserError(
            "Earlier requests were measured on the original model.",
            found="schedule=sequential",
            do="use the schedule joint, or give the data of all requests",
        )
    missing = [str(matrix.key) for request in earlier for matrix in matrices if matrix.key not in request.tokens]
    if missing:
        raise UserError(
            "An earlier request was not measured on everything that is to be weakened.",
            found=missing[0],
            do="weaken FFNs only (matrices=ffn), or give the data of all requests",
        )


def check_repeatable(data: dict[str, Iterable[Batch | SharedBatch]]) -> None:
    """Refuse batches that are gone after one pass.

    Raises:
        UserError: Some are an iterator.
    """
    for name, batches in data.items():
        if iter(batches) is batches:
            raise UserError(
                f"Several passes need {name} batches that can be gone through again.",
                found=type(batches).__name__,
                do="pass a list or a data loader instead of an iterator, or measure all layers in one pass",
            )
