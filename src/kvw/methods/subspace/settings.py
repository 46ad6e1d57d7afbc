"""Settings of subspace weakening, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from kvw.errors import UserError
from kvw.measuring.sources import Sources
from kvw.models.parts import Part
from kvw.settings import Count, Finite, NotNegative, Positive, Settings, ShareAboveZero, ShareBelowOne

Gate = Literal["exponential", "wiener", "thresholded wiener", "hard"]
Schedule = Literal["joint", "sequential"]
Path = Literal["whole model", "layer by layer"]
Instead = Literal["nothing", "refusal"]
Shrinkage = float | Literal["cross-validated"]

READ: dict[Gate, tuple[str, ...]] = {
    "exponential": ("gamma", "quantile"),
    "wiener": ("mu",),
    "thresholded wiener": ("mu", "quantile"),
    "hard": ("quantile",),
}
"""The settings that each gate uses. The others must stay as they are: they would do nothing."""
GATE_SETTINGS = {"gamma", "mu", "quantile"}


@dataclass(frozen=True)
class SubspaceSettings(Settings):
    """Subspace weakening: scale directions of coefficients that set forget and retain set apart.

    Args:
        layers: First and last decoder layer, 0-based, both included; None for all of them.
        matrices: Which value matrices are weakened: those of the FFNs (``ffn``), the output projections of attention
            from the second layer on (``attention``), or ``both``.
        shrinkage: rho in S = (1 - rho) C + rho diag(C), between 0 and 1; or ``cross-validated``, by subject.
        gate: How a direction's forget-to-retain ratio lambda becomes its gate, see :mod:`kvw.methods.subspace.gates`.
        gamma: Exponent of the exponential gate; 2 falls off as a Wiener gate does.
        mu: Price of forget output in units of retain output, for the two Wiener gates.
        threshold: tau: directions with (1/2) log lambda up to tau stay as they are. None measures it: what new
            examples of retained subjects show. For the plain Wiener gate None is what equal forget and retain sets
            could show, which is much less.
        quantile: Which part of those examples' lambda lies below a threshold that is measured.
        smallest_gate: A gate below this becomes 0, so that the direction cannot be read from what is left; 0 keeps all.
        held_out_ratio: Above 0, held-out views of the forget set and held-out retain examples decide, too. A direction
            in which their energies have a smaller ratio than this is not weakened: it may hold single photos and not
            the fact. 1.5 is a fair value where nothing must be lost. Needs three views of a fact.
        instead: What takes the place of what is taken out where an answer begins: ``nothing``, or a ``refusal``, as the
            model writes it where it is told not to know.
        rank: Most directions of each value matrix; the strongest are kept.
        strength: t in T(t), multiplies all log-gates.
        schedule: ``joint`` measures everything on the original model; ``sequential`` measures the forget set of each
            group of layers with the layers before it already weakened. The retain set is always measured on the
            original model.
        path: How the layers are measured. ``whole model`` runs batches through the model, for all layers at once or in
            several passes. ``layer by layer`` lets the states of all examples wait in main memory and runs one layer at
            a time over them: each runs once, and only its own second moments exist. None: layer by layer if the
            schedule is sequential, or if the second moments of all layers do not fit into free memory; and the whole
            model after all, with a warning, if its layers cannot be run by themselves.
        layers_per_pass: How many layers are measured in one pass over the data, on the path of the whole model. Fewer
            need less memory and more passes. None: all of them (joint) or one (sequential).
        retain_rows: Most coefficient rows of the retain set that are kept for each value matrix, sampled by weight,
            and solve from them without any width x width matrix: for very wide FFNs and many experts. Layer by layer
            only. With fewer rows than knowledge vectors, what must stay is known less well. None: full second moments.
        null_every: The threshold is measured on one retain fact in this many (one example, if facts are not given), on
            every second of its views. Their answer tokens are kept in memory until the layer is solved.
        sources: Which positions of the retain set count how much.
        min_tokens: Experts that saw fewer answer-predicting positions than this in either set are left alone.
    """

    layers: tuple[int, int] | None = None
    matrices: Part = "ffn"
    shrinkage: Shrinkage = 0.1
    gate: Gate = "wiener"
    gamma: Positive = 2.0
    mu: Positive = 0.5
    threshold: Finite | None = None
    quantile: ShareAboveZero = 0.9
    smallest_gate: ShareBelowOne = 0.02
    held_out_ratio: NotNegative = 0.0
    instead: Instead = "nothing"
    rank: Count = 64
    strength: Positive = 1.0
    schedule: Schedule = "joint"
    path: Path | None = None
    layers_per_pass: Count | None = None
    retain_rows: Count | None = None
    null_every: Count = 3
    sources: Sources = field(default_factory=Sources)
    min_tokens: Count = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers_per_pass is not None and self.path == "layer by layer":
            raise UserError(
                "layers_per_pass is for the path of the whole model.",
                found=f"layers_per_pass {self.layers_per_pass} with path 'layer by layer'",
                do="leave one of them out",
            )
        self._check_rows()
        self._check_shrinkage()
        self._check_read()

    @property
    def layers_at_once(self) -> int | None:
        """How many layers are measured in one pass; None for all."""
        return self.layers_per_pass or (1 if self.schedule == "sequential" else None)

    def _check_rows(self) -> None:
        rows = self.retain_rows
        if rows is None:
            return
        if isinstance(self.shrinkage, str) or self.shrinkage <= 0:
            raise UserError(
                "A sample of retain rows needs a shrinkage above 0, given as a number.",
                found=f"retain_rows {rows} with shrinkage {self.shrinkage}",
                do="0.1 is a fair start",
            )
        if self.path == "whole model" or self.layers_per_pass is not None:
            raise UserError(
                "retain_rows is for the path layer by layer.",
                found=f"retain_rows {rows} with path {self.path}, layers_per_pass {self.layers_per_pass}",
                do="leave one of them out",
            )

    def _check_read(self) -> None:
        read = set(READ[self.gate]) - ({"quantile"} if self.threshold is not None else set())
        for field_ in fields(self):
            given = getattr(self, field_.name)
            if field_.name in GATE_SETTINGS - read and given != field_.default:
                raise UserError(
                    f"{field_.name} would do nothing.",
                    found=f"gate '{self.gate}', threshold {self.threshold}",
                    do="leave it out, or choose a gate that goes by it; see: kvw methods subspace",
                )

    @property
    def folds(self) -> int:
        """Groups of subjects for which second moments are taken apart: 3 for cross-validation, else 1."""
        return 3 if isinstance(self.shrinkage, str) else 1

    def _check_shrinkage(self) -> None:
        if self.shrinkage != "cross-validated" and not (
            isinstance(self.shrinkage, float | int) and 0 <= self.shrinkage <= 1
        ):
            raise UserError(
                "shrinkage must lie between 0 and 1, or be 'cross-validated'.",
                found=str(self.shrinkage),
                do="give 0.1 for instance",
            )
