"""What a method says of one value matrix in advance: how much its outputs change on data like the retain set."""

from __future__ import annotations

from kvw.strict import Strict


class DistortionBounds(Strict):
    """What was found for one value matrix. Tuples have one entry for each direction that is weakened."""

    key: str
    shrinkage: float
    """rho that S was made with."""
    threshold: float
    """tau."""
    subjects: int
    """Number of forget subjects; if the data name none, of forget examples."""
    inseparable: tuple[int, ...]
    """Forget subjects without a direction above the threshold, numbered in the order of the forget set."""
    eigenvalues: tuple[float, ...]
    """lambda on the vectors that the directions were found with."""
    held_out_eigenvalues: tuple[float, ...] | None
    """lambda on held-out views and left-out retain examples; None if no fact has three views."""
    gates: tuple[float, ...]
    participation_ratio: tuple[float, ...]
    """How evenly the forget subjects share a direction: 1 / J if only one of J has it."""
    resistance: tuple[float, ...]
    """How much slower retraining on retain data restores a direction than its fastest."""
    distortion: float | None
    """E_S |(W' - W) m|^2 = |B|^2, exactly; None for quantised weights."""
    relative_distortion: float | None
    """The same, divided by E_S |W m|^2."""
    source_bounds: dict[str, float]
    """Upper bounds of E |(W' - W) m|^2 at the positions of each source, relative to E_S |W m|^2; none for quantised
    weights, or if S is a diagonal."""
