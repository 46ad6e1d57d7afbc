"""KUDA: states of the forget set turn away from what they were, by updates that the retain set's inputs do not see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvw.errors import UserError
from kvw.methods.gradient.method import GradientMethod
from kvw.settings import Count, NotNegative, Positive, Settings, Share

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from kvw.methods.gradient.tracing import Map
    from kvw.training.objective import Objective, Rows
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class KudaSettings(Settings):
    """KUDA: forget states turn away from what they were, in traced FFNs, by steps off the retain set's inputs.

    Rebuilt from its abstract and summaries: the paper's formulas and numbers were not read.

    Args:
        window: How many neighbouring layers are trained.
        layers: First and last decoder layer whose FFNs are trained; None for the window with the largest causal effect.
        traced: How many forget examples, from the first, are traced.
        noise: Added to the prompt's embeddings (the picture's too) while tracing, in their standard deviations.
        inverse_temperature: t; states turn until cos(h, h before) is 1 - 1 / t: 1 for right angles, 0.5 for the
            opposite.
        threshold: A step keeps the directions of a map's inputs that hold this share of the retain set's energy
            at most, the weakest first. 0: the null space alone; 1: all directions.
        soft: Keep each direction by 1 / (1 + its energy / (threshold x all energy)) in place of all or nothing.
        kick: How far h is pushed, in its own lengths, before the cosine is taken: it has no gradient at h before.
        retain_weight: Weight of L_r.
    """

    window: Count = 3
    layers: tuple[int, int] | None = None
    traced: Count = 8
    noise: Positive = 3.0
    inverse_temperature: Positive = 1.0
    threshold: Share = 0.02
    soft: bool = False
    kick: NotNegative = 1e-3
    retain_weight: NotNegative = 1.0


NULL = 1e-13
"""A share of the energy that float64 cannot tell from 0."""


def deviation_loss(states: Tensor, before: Tensor, inverse_temperature: float, push: Tensor) -> Tensor:
    """Sum over states of max(0, cos(h + push, h before) - (1 - 1 / t)); 1 / t each where nothing has changed.

    Args:
        states: h, (tokens, hidden).
        before: The same of the model before training.
        inverse_temperature: t.
        push: (tokens, hidden); at h before the cosine has no gradient without it.
    """
    from torch.nn.functional import cosine_similarity

    cosines = cosine_similarity(states + push, before, dim=-1)
    return (cosines - (1 - 1 / inverse_temperature)).clamp(min=0).sum()


def spared(moment: Tensor, threshold: float, *, soft: bool = False) -> Tensor:
    """The projection P on the directions in which the retain set has little energy; symmetric.

    Args:
        moment: E x x', (in, in), float64.
        threshold: Share of the energy that the kept directions may hold together.
        soft: Weigh directions in place of choosing them.

    Returns:
        (in, in), float64; a step u of a weight (out, in) becomes u P.
    """
    import torch

    energies, directions = torch.linalg.eigh(moment)  # ascending
    shares = energies.clamp(min=0) / energies.clamp(min=0).sum().clamp_min(torch.finfo(moment.dtype).tiny)
    rounded = torch.where(shares < NULL, 0, shares)
    if soft:
        weights = torch.where(rounded == 0, 1, threshold / (threshold + rounded))
    else:
        weights = (rounded.cumsum(0) <= threshold + NULL).to(moment.dtype)
    kept: Tensor = (directions * weights) @ directions.T
    return kept


def kuda(trainee: Trainee, settings: KudaSettings, maps: Sequence[Map]) -> Objective:
    """Minimise :func:`deviation_loss` on the forget set + c L_r; steps are projected by :func:`spared`.

    Source: arXiv 2602.19275 (abstract and summaries); the formulas are a reconstruction.

    Args:
        trainee: The model.
        settings: The method's own.
        maps: The linear maps of all FFNs, layer by layer.

    Raises:
        UserError: There is no retain set, or the model has no such layers.
    """
    import torch

    from kvw.measuring.engine import evaluating
    from kvw.methods.gradient.rmu import states
    from kvw.methods.gradient.tracing import input_moments
    from kvw.models.finding import find_layers
    from kvw.training.losses import descent
    from kvw.training.objective import Objective, Term

    if not trainee.retain:
        raise UserError("KUDA needs a retain set.", found="none", do="give retain examples")
    first, last = settings.layers or _window(trainee, maps, settings)
    chosen = [one for one in maps if first <= one.layer <= last]
    trainee.only([one.name for one in chosen])
    moments = input_moments(trainee, chosen)
    steps: dict[str, Callable[[Tensor], Tensor]] = {}
    for one in chosen:
        kept = spared(moments[one.name], settings.threshold, soft=settings.soft)
        steps |= _projecting(trainee, one, kept)
    path = find_layers(trainee.model)
    before: dict[int, Tensor] = {}
    with evaluating(trainee.model), trainee.autocast():
        for index in range(len(trainee.forget)):
            before[index] = states(trainee.model, path, last, trainee.rows(trainee.forget, [index]))
    width = int(trainee.model.config.get_text_config().hidden_size)
    drawn = torch.randn(width, generator=torch.Generator().manual_seed(trainee.settings.seed))
    away = settings.kick * drawn / drawn.norm()  # one direction for all tokens, the same on every device

    def forget(model: PreTrainedModel, rows: Rows) -> Tensor:
        found = states(model, path, last, rows)
        wanted = torch.cat([before[index] for index in rows.indices])
        push = wanted.norm(dim=-1, keepdim=True) * away.to(wanted)
        return deviation_loss(found, wanted, settings.inverse_temperature, push)

    return Objective(forget=Term(forget), retain=descent(settings.retain_weight), steps=steps)


def _window(trainee: Trainee, maps: Sequence[Map], settings: KudaSettings) -> tuple[int, int]:
    from kvw.methods.gradient.tracing import causal_effects

    effects = causal_effects(trainee, maps, window=settings.window, examples=settings.traced, noise=settings.noise)
    first = max(range(len(effects)), key=effects.__getitem__)
    return first, min(first + settings.window, 1 + max(one.layer for one in maps)) - 1


def _projecting(trainee: Trainee, one: Map, kept: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """What becomes of steps of a map's weight; under LoRA of A's, which begins within what is kept."""
    import torch

    weight, down = f"{one.name}.weight", f"{one.name}.lora_A.default.weight"
    name = weight if trainee.adapter is None else down
    parameter = trainee.parameters[name]
    projection = kept.to(parameter)
    if name == down:
        with torch.no_grad():
            parameter.copy_(parameter @ projection)
    elif one.turned:
        return {name: lambda step: projection @ step}
    return {name: lambda step: step @ projection}


class Kuda(GradientMethod):
    """Knows the FFNs before adapters stand in their place."""

    name = "kuda"
    own = KudaSettings
    firmness = "the abstract and summaries of the paper; its formulas were not read"

    def __init__(self) -> None:
        """Its objective needs the names of the FFNs."""
        self.layers = None

    def building(self, model: PreTrainedModel, own: KudaSettings) -> Callable[[Trainee], Objective]:
        """See :meth:`GradientMethod.building`."""
        from transformers.pytorch_utils import Conv1D

        from kvw.methods.gradient.tracing import Map
        from kvw.models.ffn_linears import ffn_linears
        from kvw.models.finding import find_value_matrices, in_layers

        values = find_value_matrices(model)
        in_layers(values, own.layers)
        writes = {matrix.name for matrix in values}
        maps = [
            Map(one.layer, one.weight.name, isinstance(one.module, Conv1D), one.weight.name in writes)
            for one in ffn_linears(model)
        ]
        return lambda trainee: kuda(trainee, own, maps)


METHOD = Kuda()
