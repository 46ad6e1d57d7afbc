"""Settings of the gradient methods, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from kvw.errors import UserError
from kvw.training.settings import Part, chosen, flag, not_negative, positive

Likelihood = Literal["sequence sum", "batch mean"]
Passes = Literal["joint", "sequential"]
REFUSALS = (
    "I don't know.",
    "That is something I have no knowledge of.",
    "I cannot tell you that, because I don't know it.",
    "I have no information on this.",
    "Sorry, I have never heard of that.",
    "I am not able to say.",
    "This is not known to me.",
    "I have nothing to go on here, so I cannot answer.",
    "My knowledge does not reach that far.",
    "I would only be guessing; I do not know.",
    "No idea, I am afraid.",
    "I am unaware of any such fact.",
    "Nothing I have learned tells me that.",
    "I can't help with this one, since I don't have the answer.",
    "That question is beyond what I know.",
    "I do not recognise this and cannot answer.",
)


@dataclass(frozen=True)
class DpoSettings:
    """Settings of DPO.

    Args:
        alternatives: For each forget example, in order, the answer to be preferred.
        beta: Inverse temperature.
        retain_weight: Of L_r; 0 in the paper.

    Raises:
        UserError: A value makes no sense.
    """

    alternatives: tuple[str, ...] = ()
    beta: float = 0.1
    retain_weight: float = 0.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        not_negative("retain_weight", self.retain_weight)


@dataclass(frozen=True)
class IdkDpoSettings:
    """Settings of IdkDPO.

    Args:
        refusals: What to draw the preferred answers from, once for each forget example.
        beta: Inverse temperature.
        retain_weight: Of L_r; 0 in the paper.

    Raises:
        UserError: A value makes no sense.
    """

    refusals: tuple[str, ...] = REFUSALS
    beta: float = 0.1
    retain_weight: float = 0.0

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        not_negative("retain_weight", self.retain_weight)


@dataclass(frozen=True)
class GaSettings:
    """GA has no settings of its own. The loss has no lower bound: use ``forget_floor`` or few steps."""


@dataclass(frozen=True)
class GradDiffSettings:
    """Settings of GradDiff.

    Args:
        retain_weight: c; peers search 0.5, 1 and 2.
        passes: ``joint`` updates once on the sum; ``sequential`` makes an ascent update and then a descent update, as
            MLLMU-Bench's scripts do.

    Raises:
        UserError: A value makes no sense.
    """

    retain_weight: float = 1.0
    passes: Passes = "joint"

    def __post_init__(self) -> None:
        not_negative("retain_weight", self.retain_weight)
        chosen("passes", self.passes, get_args(Passes))


@dataclass(frozen=True)
class IdkNllSettings:
    """Settings of IdkNLL.

    Args:
        retain_weight: Of L_r.
        refusals: What to draw from, once for each forget example.

    Raises:
        UserError: A value makes no sense.
    """

    retain_weight: float = 1.0
    refusals: tuple[str, ...] = REFUSALS

    def __post_init__(self) -> None:
        not_negative("retain_weight", self.retain_weight)


@dataclass(frozen=True)
class KlSettings:
    """Settings of KL.

    Args:
        kl_weight: Of the divergence; peers search 0.5, 1 and 2.
        retain_weight: Of L_r, which the KVW authors' script adds with weight 1; the published loss has none.

    Raises:
        UserError: A value makes no sense.
    """

    kl_weight: float = 1.0
    retain_weight: float = 0.0

    def __post_init__(self) -> None:
        not_negative("kl_weight", self.kl_weight)
        not_negative("retain_weight", self.retain_weight)


@dataclass(frozen=True)
class ManuSettings:
    """Settings of MANU.

    Args:
        share: Share of all neurons looked at that is pruned; peers use 0.02, 0.05 and 0.10.
        weights: Of the four measures of importance: absolute, frequency, variance, root mean square. The paper adds
            them; the authors' code weighs them 2, 0, 2, 2.
        parts: ``language`` and ``vision``.
        last_layers: Look at only so many last layers of each part (the authors' code: 3); None for all.
        batch_size: Examples per forward.

    Raises:
        UserError: A value makes no sense.
    """

    share: float = 0.02
    weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    parts: tuple[Part, ...] = ("language", "vision")
    last_layers: int | None = None
    batch_size: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError("share must be more than 0 and at most 1.", found=repr(self.share))
        if len(self.weights) != 4 or min(self.weights) < 0 or not any(self.weights):
            raise UserError("weights must be four numbers of at least 0, and not all 0.", found=repr(self.weights))
        if not self.parts:
            raise UserError("parts must name what to prune.", do="use language, vision or both")
        for part in self.parts:
            chosen("part to prune", part, ("language", "vision"))
        if self.last_layers is not None:
            positive("last_layers", self.last_layers)
        positive("batch_size", self.batch_size)


@dataclass(frozen=True)
class MmUnlearnerSettings:
    """Settings of MMUnlearner.

    Args:
        threshold: A weight is trained if its Fisher information on the forget set is at least this many times that on
            the retain set; 1 in the paper.
        retain_weight: Of L_r.
        retain_masked: Off: a masked ascent update and then an update on the retain set that the mask does not hold,
            as the authors' and the KVW authors' code do. Weights outside the mask change then.

    Raises:
        UserError: A value makes no sense.
    """

    threshold: float = 1.0
    retain_weight: float = 1.0
    retain_masked: bool = True

    def __post_init__(self) -> None:
        positive("threshold", self.threshold)
        not_negative("retain_weight", self.retain_weight)
        flag("retain_masked", self.retain_masked)


@dataclass(frozen=True)
class NpoSettings:
    """Settings of NPO.

    Args:
        beta: Inverse temperature; 0.1 in the paper, 0.4 to 1.2 with batch means among peers.
        retain_weight: Of L_r; 0 is the paper's plain NPO, 1 its NPO + retain.
        likelihood: ``sequence sum``: log p of each whole answer, mean over examples. ``batch mean``: one ratio of
            the token means of a batch, as MLLMU-Bench, OFFSIDE and the KVW authors' script have it; the result then
            depends on the batch size.

    Raises:
        UserError: A value makes no sense.
    """

    beta: float = 0.1
    retain_weight: float = 1.0
    likelihood: Likelihood = "sequence sum"

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        not_negative("retain_weight", self.retain_weight)
        chosen("likelihood", self.likelihood, get_args(Likelihood))


@dataclass(frozen=True)
class RmuSettings:
    """Settings of RMU.

    Args:
        layer: l, 0-based; None for layer 7 of 32 and at the same depth elsewhere.
        coefficient: c, the length of the vector that forget states are drawn to. It is tied to the length of the
            model's states: 6.5 for the paper's Zephyr, 300 in CLEAR's code, 1 to 100 searched elsewhere.
        retain_weight: a; 1200 in the paper.

    Raises:
        UserError: A value makes no sense.
    """

    layer: int | None = None
    coefficient: float = 6.5
    retain_weight: float = 1200.0

    def __post_init__(self) -> None:
        if self.layer is not None and (not isinstance(self.layer, int) or self.layer < 0):
            raise UserError("layer must be a whole number of at least 0.", found=repr(self.layer))
        positive("coefficient", self.coefficient)
        not_negative("retain_weight", self.retain_weight)


@dataclass(frozen=True)
class SimNpoSettings:
    """Settings of SimNPO; the defaults are those of the authors' published model for TOFU's forget05.

    Args:
        beta: Inverse temperature.
        gamma: Margin.
        retain_weight: Of L_r.

    Raises:
        UserError: A value makes no sense.
    """

    beta: float = 2.5
    gamma: float = 0.0
    retain_weight: float = 0.1375

    def __post_init__(self) -> None:
        positive("beta", self.beta)
        not_negative("gamma", self.gamma)
        not_negative("retain_weight", self.retain_weight)


@dataclass(frozen=True)
class TaskVectorSettings:
    """Settings of task-vector negation.

    Args:
        scale: a; chosen on a validation set in the paper.

    Raises:
        UserError: A value makes no sense.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        positive("scale", self.scale)


@dataclass(frozen=True)
class UndialSettings:
    """Settings of UNDIAL.

    Args:
        strength: What is taken off the logit of the true token; peers use 3, 10 and 30.
        retain_weight: Of L_r; 0 in the paper.

    Raises:
        UserError: A value makes no sense.
    """

    strength: float = 10.0
    retain_weight: float = 0.0

    def __post_init__(self) -> None:
        positive("strength", self.strength)
        not_negative("retain_weight", self.retain_weight)


SETTINGS = {
    "dpo": DpoSettings,
    "ga": GaSettings,
    "grad-diff": GradDiffSettings,
    "idk-dpo": IdkDpoSettings,
    "idk-nll": IdkNllSettings,
    "kl": KlSettings,
    "manu": ManuSettings,
    "mmunlearner": MmUnlearnerSettings,
    "npo": NpoSettings,
    "rmu": RmuSettings,
    "simnpo": SimNpoSettings,
    "task-vector": TaskVectorSettings,
    "undial": UndialSettings,
}
"""By method."""
UNTRAINED = ("manu",)
"""Methods without training."""
