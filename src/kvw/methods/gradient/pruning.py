"""Pruning the neurons that matter more to the forget set (MANU); no training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvw.data import prepare
from kvw.data.batches import Prepared, answer_batch, image_groups, to_model
from kvw.data.rendering import Processor
from kvw.errors import UserError
from kvw.measuring.engine import evaluating
from kvw.methods.gradient.importance import Moments, Seen, scores
from kvw.methods.gradient.manu import ManuSettings
from kvw.models.detection import ffns
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.progress import Progress
from kvw.training.parts import find_parts
from kvw.training.result import Result


def manu(
    model: PreTrainedModel,
    processor: Processor,
    forget: Sequence[Prepared],
    retain: Sequence[Prepared],
    settings: ManuSettings,
    progress: Progress | None = None,
) -> Result:
    """Set the knowledge vectors of the neurons with the highest S to zero, in place.

    A neuron is one of an FFN's coefficients m_i with its vector v_i, in the text decoder or in a vision tower. S is
    that of :func:`~kvw.methods.gradient.importance.scores`, over all attended positions (patches, in a tower). The
    neurons of all FFNs looked at compete for one share.

    Source: Liu et al., arXiv 2502.15910.

    Raises:
        UserError: A set is empty or lacks the pictures that the formula needs, the model has no such part or has
            experts, or an FFN sees no token.
    """
    if not forget or not retain:
        raise UserError("MANU compares a forget set with a retain set.", found="an empty set", do="give both")
    matrices = neurons(model, settings)
    text = {matrix.name for matrix in find_value_matrices(model)}
    look = _Look(model, processor, matrices, settings, progress)
    sides = [look.at(prepared, text) for prepared in _sides(forget, retain, settings)]
    found = []
    for matrix in matrices:
        mine, others = (side[matrix.name] for side in sides)
        if not (mine.known and others.known):
            raise UserError(
                f"{matrix.name} saw no token.",
                found="a set without images" if "vision" in settings.parts else "no attended position",
                do="give examples with images in both sets, or prune only language",
            )
        found.append(scores(settings.formula, mine, others, settings.chosen_weights))
    for matrix, rows in zip(matrices, _highest(found, settings.share), strict=True):
        weight = matrix.read().clone()
        weight.index_fill_(0 if matrix.vectors_first else 1, rows.to(weight.device), 0)
        matrix.write(weight)
    weights = {matrix.parameter: matrix.read() for matrix in matrices}
    return Result("manu", {"method": asdict(settings)}, weights)


def _sides(forget: Sequence[Prepared], retain: Sequence[Prepared], settings: ManuSettings) -> list[Sequence[Prepared]]:
    """The two sets; of the paper's formula only what has pictures.

    Raises:
        UserError: It has none.
    """
    if settings.formula != "paper":
        return [forget, retain]
    sides = [[item for item in prepared if item.image_count] for prepared in (forget, retain)]
    if not all(sides):
        raise UserError(
            "MANU's formula in the paper sets examples with pictures against the same ones without.",
            found="a set without pictures",
            do="give pictures in both sets, or use --set formula=code",
        )
    return [*sides]


def neurons(model: PreTrainedModel, settings: ManuSettings) -> list[ValueMatrix]:
    """The value matrices whose neurons compete.

    Raises:
        UserError: The model has no such part, or has experts.
    """
    matrices: list[ValueMatrix] = []
    for part in settings.parts:
        here = find_value_matrices(model) if part == "language" else tower_matrices(model)
        if any(matrix.key.expert is not None for matrix in here):
            raise UserError(
                "MANU prunes dense FFNs only, and this model has experts.",
                found=type(model).__name__,
                do="take another --method",
            )
        last = max(matrix.key.layer for matrix in here)
        kept = last + 1 if settings.chosen_last_layers is None else settings.chosen_last_layers
        matrices += [matrix for matrix in here if matrix.key.layer > last - kept]
    return matrices


def tower_matrices(model: PreTrainedModel) -> list[ValueMatrix]:
    """The value matrices of the vision towers, by wiring: what is built like an FFN in every layer of a list.

    Raises:
        UserError: There is no tower, or no FFN in it.
    """
    matrices = []
    for tower in find_parts(model).vision:
        module = model.get_submodule(tower)
        widths = {getattr(module.config, name, None) for name in ("hidden_size", "embed_dim")}
        for path, layers in module.named_modules():
            if not isinstance(layers, nn.ModuleList):
                continue
            for hidden in sorted(width for width in widths if isinstance(width, int)):
                names = [dict(ffns(layer, hidden)) for layer in layers]
                for place in sorted(set.intersection(*map(set, names))):
                    for index, layer in enumerate(layers):
                        name = f"{tower}.{path}.{index}.{place}"
                        matrices.append(ValueMatrix(MatrixKey(index), name, layer.get_submodule(place)))
    if not matrices:
        raise UserError(
            f"No FFN of a vision tower was found in {type(model).__name__}.",
            do="prune only language: parts=('language',)",
        )
    return matrices


class _Look:
    """Runs sets through a model and sums what FFNs see.

    Args:
        model: The model.
        processor: Its processor.
        matrices: The value matrices of the FFNs.
        settings: ``formula`` and ``batch_size``.
        progress: Called with examples done and how many there are.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Processor,
        matrices: Sequence[ValueMatrix],
        settings: ManuSettings,
        progress: Progress | None,
    ) -> None:
        self._model, self._processor, self._matrices = model, processor, matrices
        self._settings, self._progress = settings, progress
        self._done = 0

    def at(self, prepared: Sequence[Prepared], text: set[str]) -> dict[str, Seen]:
        """What each FFN sees of a set; ``text`` names the value matrices of the decoder."""
        formula = self._settings.formula
        towers = [matrix for matrix in self._matrices if matrix.name not in text]
        decoder = [matrix for matrix in self._matrices if matrix.name in text]
        if formula == "pooled":
            return {name: Seen(pictured=one) for name, one in self._run(prepared, self._matrices, text).items()}
        pictured = [item for item in prepared if item.image_count]
        shown = towers if formula == "code" else self._matrices
        first = self._run(pictured, shown, text) if pictured and shown else {}
        second = self._run(without_pictures(prepared, self._processor, self._model), decoder, text) if decoder else {}
        return {matrix.name: Seen(first.get(matrix.name), second.get(matrix.name)) for matrix in self._matrices}

    def _run(self, prepared: Sequence[Prepared], matrices: Sequence[ValueMatrix], text: set[str]) -> dict[str, Moments]:
        moments = {matrix.name: Moments() for matrix in matrices}
        attended = torch.empty(0)

        def see(matrix: ValueMatrix) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def take(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
                values = arguments[0].detach().reshape(-1, matrix.width)  # (positions, width)
                moments[matrix.name].add(values[attended.to(values.device)] if matrix.name in text else values)

            return take

        rows = self._settings.batch_size
        with evaluating(self._model), ExitStack() as hooks:
            for matrix in matrices:
                hooks.enter_context(matrix.module.register_forward_pre_hook(see(matrix)))
            for group in image_groups(prepared):
                for start in range(0, len(group), rows):
                    items = [prepared[index] for index in group[start : start + rows]]
                    batch = to_model(answer_batch(items, self._processor), self._model)
                    attended = batch["attention_mask"].flatten().nonzero()[:, 0]
                    self._model(**{name: value for name, value in batch.items() if name != "labels"}, use_cache=False)
                    self._done += len(items)
                    if self._progress:
                        self._progress(self._done, 0)
        return moments


def without_pictures(prepared: Sequence[Prepared], processor: Processor, model: PreTrainedModel) -> list[Prepared]:
    """The same questions and answers, with no picture shown.

    Raises:
        UserError: One cannot be rendered so.
    """
    bare = [
        replace(item.example, images=(), earlier=tuple(replace(turn, images=0) for turn in item.example.earlier))
        for item in prepared
    ]
    return prepare(bare, processor, model.config)


def _highest(scores: Sequence[Tensor], share: float) -> list[Tensor]:
    """The positions of each FFN's neurons among the highest share of all; ties go to the earlier one."""
    joined = torch.cat(list(scores))  # neurons of all FFNs compete
    count = max(1, round(share * len(joined)))
    chosen = torch.zeros(len(joined), dtype=torch.bool)
    chosen[joined.sort(descending=True, stable=True).indices[:count]] = True
    return [part.nonzero()[:, 0] for part in torch.split(chosen, [len(score) for score in scores])]
