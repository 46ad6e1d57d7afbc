"""Pruning the neurons that matter more to the forget set (MANU); no training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvw.data.batches import Prepared, answer_batch, image_groups, to_model
from kvw.data.rendering import Processor
from kvw.errors import UserError
from kvw.measuring.engine import evaluating
from kvw.methods.gradient.manu import ManuSettings
from kvw.models.detection import ffns
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.progress import Progress
from kvw.training.parts import find_parts
from kvw.training.result import Result

ACTIVE = 0.1
"""A neuron counts as active where the absolute value of its coefficient is above this."""
EPSILON = 1e-5


@dataclass
class _Moments:
    """Sums over tokens of one FFN's coefficients: (width,), float64 each."""

    count: int = 0
    sums: list[Tensor] = field(default_factory=list)

    def add(self, coefficients: Tensor) -> None:
        """Take in coefficients (tokens, width)."""
        values = coefficients.double()
        new = [values.abs(), (values.abs() > ACTIVE).double(), values, values.square()]
        totals = [part.sum(0) for part in new]
        self.sums = [old + total for old, total in zip(self.sums, totals, strict=True)] if self.sums else totals
        self.count += len(values)

    def importance(self, weights: Sequence[float]) -> Tensor:
        """I = weighted sum of mean |m|, share of |m| > 0.1, variance of m, and root of the mean of m^2."""
        absolute, frequency, mean, square = (total / self.count for total in self.sums)
        measures = (absolute, frequency, (square - mean.square()).clamp_min(0), square.sqrt())
        return torch.stack([weight * part for weight, part in zip(weights, measures, strict=True)]).sum(0)


def manu(
    model: PreTrainedModel,
    processor: Processor,
    forget: Sequence[Prepared],
    retain: Sequence[Prepared],
    settings: ManuSettings,
    progress: Progress | None = None,
) -> Result:
    """Set the knowledge vectors of the neurons with the highest S = I_f / (I_r + 1e-5) to zero, in place.

    A neuron is one of an FFN's coefficients m_i with its vector v_i, in the text decoder or in a vision tower. I adds
    four measures of its activity over all attended positions (patches, in a tower). The neurons of all FFNs looked at
    compete for one share.

    Source: Liu et al., arXiv 2502.15910.

    Raises:
        UserError: A set is empty, the model has no such part or has experts, or an FFN sees no token.
    """
    if not forget or not retain:
        raise UserError("MANU compares a forget set with a retain set.", found="an empty set", do="give both")
    matrices = neurons(model, settings)
    seen = []
    for number, prepared in enumerate((forget, retain)):
        total, before = len(forget) + len(retain), number * len(forget)
        seen.append(_measure(model, processor, prepared, matrices, settings, before, total, progress))
    scores = []
    for matrix in matrices:
        if not all(moments[matrix.name].count for moments in seen):
            raise UserError(
                f"{matrix.name} saw no token.",
                found="a set without images" if "vision" in settings.parts else "no attended position",
                do="give examples with images in both sets, or prune only language",
            )
        importance = [moments[matrix.name].importance(settings.weights) for moments in seen]
        scores.append((importance[0] / (importance[1] + EPSILON)).cpu())
    for matrix, rows in zip(matrices, _highest(scores, settings.share), strict=True):
        weight = matrix.read().clone()
        weight.index_fill_(0 if matrix.vectors_first else 1, rows.to(weight.device), 0)
        matrix.write(weight)
    weights = {matrix.parameter: matrix.read() for matrix in matrices}
    return Result("manu", {"method": asdict(settings)}, weights)


def neurons(model: PreTrainedModel, settings: ManuSettings) -> list[ValueMatrix]:
    """The value matrices whose neurons compete.

    Raises:
        UserError: The model has no such part, or has experts.
    """
    matrices: list[ValueMatrix] = []
    for part in settings.parts:
        here = find_value_matrices(model) if part == "language" else tower_matrices(model)
        if any(matrix.key.expert is not None for matrix in here):
            raise UserError("MANU prunes dense FFNs only, and this model has experts.", found=type(model).__name__)
        last = max(matrix.key.layer for matrix in here)
        kept = last + 1 if settings.last_layers is None else settings.last_layers
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


def _measure(
    model: PreTrainedModel,
    processor: Processor,
    prepared: Sequence[Prepared],
    matrices: Sequence[ValueMatrix],
    settings: ManuSettings,
    done: int,
    total: int,
    progress: Progress | None,
) -> dict[str, _Moments]:
    moments = {matrix.name: _Moments() for matrix in matrices}
    text = {matrix.name for matrix in find_value_matrices(model)}
    attended = torch.empty(0)

    def see(matrix: ValueMatrix) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def take(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            values = arguments[0].detach().reshape(-1, matrix.width)  # (positions, width)
            moments[matrix.name].add(values[attended.to(values.device)] if matrix.name in text else values)

        return take

    with evaluating(model), ExitStack() as hooks:
        for matrix in matrices:
            hooks.enter_context(matrix.module.register_forward_pre_hook(see(matrix)))
        for group in image_groups(prepared):
            for start in range(0, len(group), settings.batch_size):
                items = [prepared[index] for index in group[start : start + settings.batch_size]]
                batch = to_model(answer_batch(items, processor), model)
                attended = batch["attention_mask"].flatten().nonzero()[:, 0]
                model(**{name: value for name, value in batch.items() if name != "labels"}, use_cache=False)
                done += len(items)
                if progress:
                    progress(done, total)
    return moments


def _highest(scores: Sequence[Tensor], share: float) -> list[Tensor]:
    """The positions of each FFN's neurons among the highest share of all; ties go to the earlier one."""
    joined = torch.cat(list(scores))  # neurons of all FFNs compete
    count = max(1, round(share * len(joined)))
    chosen = torch.zeros(len(joined), dtype=torch.bool)
    chosen[joined.sort(descending=True, stable=True).indices[:count]] = True
    return [part.nonzero()[:, 0] for part in torch.split(chosen, [len(score) for score in scores])]
