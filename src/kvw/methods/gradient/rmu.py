"""Representation misdirection (RMU)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvw.errors import UserError
from kvw.methods.gradient.method import GradientMethod
from kvw.settings import Index, NotNegative, Positive, Settings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvw.training.objective import Objective, Rows
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class RmuSettings(Settings):
    """Representation misdirection: states of forget answers are drawn to a random vector.

    Args:
        layer: l, 0-based; None for layer 7 of 32 and at the same depth elsewhere.
        coefficient: c, the length of the vector that forget states are drawn to. It is tied to the length of the
            model's states: 6.5 for the paper's Zephyr, 300 in CLEAR's code, 1 to 100 searched elsewhere.
        retain_weight: a; 1200 in the paper.
    """

    layer: Index | None = None
    coefficient: Positive = 6.5
    retain_weight: NotNegative = 1200.0


def rmu_layers(model: PreTrainedModel, settings: RmuSettings) -> tuple[int, int]:
    """First and last decoder layer that RMU trains: l - 2 to l.

    Raises:
        UserError: The model has no such layer.
    """
    layer = at_depth(model, settings.layer)
    return max(0, layer - 2), layer


def at_depth(model: PreTrainedModel, layer: int | None) -> int:
    """A decoder layer, 0-based; None for layer 7 of 32 and at the same depth elsewhere.

    Raises:
        UserError: The model has no such layer.
    """
    from kvw.models.layer_inputs import decoder_layers

    depth = len(decoder_layers(model))
    if layer is None:
        return round(7 / 32 * depth)
    if layer >= depth:
        raise UserError(f"The model has no layer {layer}.", found=f"layers 0 to {depth - 1}", do="name one of these")
    return layer


def rmu(trainee: Trainee, settings: RmuSettings) -> Objective:
    """Minimise mean ||h - c u||^2 on the forget set + a mean ||h - h_ref||^2 on the retain set.

    h are the states after layer l at the answer-predicting positions, h_ref those of the model before unlearning, and
    u is one random unit vector with entries drawn from [0, 1) before scaling. Only layers l - 2 to l are trained.

    Source: Li et al. (WMDP), arXiv 2403.03218.
    """
    import torch

    from kvw.models.finding import find_layers
    from kvw.training.objective import Objective, Term

    path, (_, layer) = find_layers(trainee.model), rmu_layers(trainee.model, settings)
    hidden = int(trainee.model.config.get_text_config().hidden_size)
    # One random direction for all tokens, drawn on the CPU so that every device has the same: (hidden,)
    drawn = torch.rand(hidden, generator=torch.Generator().manual_seed(trainee.settings.seed))
    target: Tensor = (settings.coefficient * drawn / drawn.norm()).to(trainee.model.device)
    reference = trainee.reference() if settings.retain_weight else None

    def forget(model: PreTrainedModel, rows: Rows) -> Tensor:
        distances = states(model, path, layer, rows) - target
        return distances.square().sum()

    def retain(model: PreTrainedModel, rows: Rows) -> Tensor:
        if reference is None:
            raise ValueError("a retain loss of weight 0 is not run")
        with reference.model() as original:
            wanted = states(original, path, layer, rows)
        distances = states(model, path, layer, rows) - wanted
        return distances.square().sum()

    return Objective(forget=Term(forget), retain=Term(retain, "token", settings.retain_weight))


def states(model: PreTrainedModel, path: str, layer: int, rows: Rows) -> Tensor:
    """Hidden states after a decoder layer at the answer-predicting positions; nothing behind it runs.

    Args:
        model: The model.
        path: Path of its decoder layers.
        layer: 0-based.
        rows: The batch.

    Returns:
        (answer tokens, hidden), float32 or better.
    """
    import torch

    from kvw.measuring.positions import predicting_positions
    from kvw.measuring.recorder import StopForward

    seen: list[Tensor] = []

    def take(module: Any, arguments: Any, output: Any) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)
        raise StopForward

    layers: Any = model.get_submodule(path)
    with layers[layer].register_forward_hook(take), suppress(StopForward):
        model(**{name: value for name, value in rows.batch.items() if name != "labels"}, use_cache=False)
    # (batch, tokens, hidden) -> (answer tokens, hidden)
    chosen = seen[0].flatten(0, 1)[predicting_positions(rows.batch).to(seen[0].device)]
    return chosen.to(torch.promote_types(chosen.dtype, torch.float32))


METHOD = GradientMethod("rmu", RmuSettings, rmu, rmu_layers)
