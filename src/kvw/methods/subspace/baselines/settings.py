"""Settings of the baselines of subspace weakening, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from kvw.measuring.sources import Sources
from kvw.models.parts import Part
from kvw.settings import Count, Positive, Settings, Share, ShareBelowOne


@dataclass(frozen=True)
class BaselineSettings(Settings):
    """What all baselines can be told.

    Args:
        layers: First and last decoder layer, 0-based, both included; None for all of them.
        matrices: Which value matrices: of the FFNs (``ffn``), the output projections of attention from the second
            layer on (``attention``), or ``both``.
        layers_per_pass: How many layers are measured in one pass over the data; fewer need less memory and more
            passes. None: all of them.
        sources: Which positions of the retain set count how much.
        min_tokens: Experts that saw fewer answer-predicting positions than this in either set are left alone.
    """

    name: ClassVar[str]
    firmness: ClassVar[str] = ""
    """What of the published method was known; empty where its formula was read."""
    by_fact: ClassVar[bool] = False
    """Forget vectors are means over the views of a fact, as in subspace weakening. Else they are single tokens."""

    layers: tuple[int, int] | None = None
    matrices: Part = "ffn"
    layers_per_pass: Count | None = None
    sources: Sources = field(default_factory=Sources)
    min_tokens: Count = 16

    @property
    def layers_at_once(self) -> int | None:
        """How many layers are measured in one pass; None for all."""
        return self.layers_per_pass

    @property
    def most_rank(self) -> int:
        """Most directions of each value matrix; 1 where the settings do not say."""
        return 1


@dataclass(frozen=True)
class MemitZeroSettings(BaselineSettings):
    """MEMIT with zero as the wanted output: the Wiener gate on every direction of single forget tokens.

    Args:
        mu: Price of forget output in units of retain output; 1 over MEMIT's lambda, with means in place of sums.
        shrinkage: rho in S = (1 - rho) C + rho diag(C), between 0 and 1.
    """

    name: ClassVar[str] = "memit-zero"

    mu: Positive = 1.0
    shrinkage: Share = 0.1


@dataclass(frozen=True)
class LeaceSettings(BaselineSettings):
    """LEACE with the forget facts as the concept: their strongest directions are projected out, obliquely.

    Args:
        rank: Most directions of each value matrix, the strongest first; all of them would destroy the
            model, because each takes something from everybody.
        shrinkage: rho in S = (1 - rho) C + rho diag(C), between 0 and 1.
    """

    name: ClassVar[str] = "leace"
    by_fact: ClassVar[bool] = True

    rank: Count = 16
    shrinkage: Share = 0.1

    @property
    def most_rank(self) -> int:
        """See :class:`BaselineSettings`."""
        return self.rank


@dataclass(frozen=True)
class DeepUnlearningSettings(BaselineSettings):
    """Deep Unlearning: two soft projectors, on what the forget tokens use and on what the retain set does not.

    Args:
        alpha_r: How far the retain projector reaches into weak directions; the authors try 10 to 1000.
        alpha_f: The same of the forget projector; the authors try 1 to 100.
    """

    name: ClassVar[str] = "deep-unlearning"

    alpha_r: Positive = 100.0
    alpha_f: Positive = 3.0


@dataclass(frozen=True)
class ForgetComponentsSettings(BaselineSettings):
    """The principal components of the forget tokens are projected out, as Nullu does with differences.

    Args:
        rank: How many for each value matrix. Nothing looks at the retain set but ``min_tokens``.
    """

    name: ClassVar[str] = "forget-components"

    rank: Count = 16

    @property
    def most_rank(self) -> int:
        """See :class:`BaselineSettings`."""
        return self.rank


@dataclass(frozen=True)
class OutputSideSettings(BaselineSettings):
    """The Wiener gate on directions of what comes out of a value matrix for the forget facts, not of what goes in.

    Args:
        mu: Price of forget output in units of retain output.
        shrinkage: rho in S = (1 - rho) C + rho diag(C) of the outputs, between 0 and 1.
    """

    name: ClassVar[str] = "output-side"
    by_fact: ClassVar[bool] = True

    mu: Positive = 1.0
    shrinkage: Share = 0.1


@dataclass(frozen=True)
class RmsKvwSettings(BaselineSettings):
    """KVW's gates in one shot, with root mean squares of tokens in place of mean absolute values.

    Args:
        gamma: Strength: a gate is the ratio of retain to forget root mean square to this power, and at most 1.
    """

    name: ClassVar[str] = "rms-kvw"

    gamma: Positive = 1.0


@dataclass(frozen=True)
class VlEraserSettings(BaselineSettings):
    """VL-Eraser in closed form: what the forget tokens write is taken out within the null space of the retain set.

    Args:
        energy: Share of the retain set's energy that the null space may hold, the emptiest directions first; at 0
            only directions without any.
        ridge: gamma of the least squares, as a share of the strongest direction's forget energy.
    """

    name: ClassVar[str] = "vl-eraser"
    firmness: ClassVar[str] = (
        "the abstract and summaries of the paper, whose distillation is solved here in closed form"
    )

    energy: ShareBelowOne = 0.01
    ridge: Positive = 0.01
