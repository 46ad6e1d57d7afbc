"""What lambda looks like when there is nothing to forget: new examples of subjects that are in the retain set.

Even data from the retain set's own distribution has directions with lambda well above 1, only because they were
sampled: about 13 with 11,008 neurons, 2,000 forget tokens and 100,000 retain tokens. A threshold of 1 would weaken them
all. The right yardstick is new examples of subjects that S knows; subjects it does not know look like forget subjects.

No examples are set aside. A few retain examples are taken out of S by algebra instead: with their tokens T and masses
D, S_0 = S - (1 - rho) T D T^T, and T^T S_0^-1 T = G (I - (1 - rho) D G)^-1 with the small G = T^T S^-1 T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kvw.methods.subspace.solver import Metric, ReducedMetric
from kvw.methods.subspace.vectors import Columns


@dataclass(frozen=True)
class LeftOut:
    """Tokens, seen as if S had been measured without them.

    Args:
        gram: T^T S^-1 T with the full S: (tokens, tokens), float64.
        masses: (1 - rho) times each token's share of C: (tokens,), float64; 0 for tokens that S never held.
    """

    gram: Tensor
    masses: Tensor

    @classmethod
    def of(cls, found: Metric | ReducedMetric, tokens: Tensor, shares: Tensor) -> LeftOut:
        """Leave tokens out of a metric.

        The diagonal that S was shrunk towards keeps them: a part rho of a small share.

        Args:
            found: S.
            tokens: T: (width, tokens).
            shares: Weight of each token's outer product in C: (tokens,); 0 if it is not in it.
        """
        gram = found.gram(tokens)
        return cls(gram, (1 - found.shrinkage) * shares.to(gram))

    def without(self) -> Tensor:
        """T^T S_0^-1 T: (tokens, tokens), float64."""
        gram: Tensor = torch.linalg.solve(self._system().T, self.gram.T).T
        return gram

    def projected(self, projections: Tensor) -> Tensor:
        """T^T V_0 with filters V_0 = S_0^-1 F Z Lambda^-1/2, from T^T V with the full S: (tokens, rank)."""
        solved: Tensor = torch.linalg.solve(self._system().T, projections.to(self.gram))
        return solved

    def part(self, wanted: Tensor) -> LeftOut:
        """Leave out only some of the tokens; the others stay in S."""
        return LeftOut(self.gram[wanted][:, wanted], self.masses[wanted])

    def _system(self) -> Tensor:
        """I - M G, with the masses M on the diagonal: S_0 = S - T M T^T, so T^T S_0^-1 T = G (I - M G)^-1
        (Woodbury)."""
        identity = torch.eye(len(self.gram), dtype=self.gram.dtype, device=self.gram.device)
        return identity - self.masses[:, None] * self.gram


def null_eigenvalues(left_out: LeftOut, columns: Columns, count: int) -> Tensor:
    """lambda of pseudo-forget moments made of left-out tokens, of the same kind and size as the forget moment.

    Args:
        left_out: The tokens.
        columns: How they make columns.
        count: Columns of the forget moment. With twice as many here or more, several moments of that size are made;
            with fewer, one smaller one, whose lambda are rather too large.

    Returns:
        All of them together, unordered, float64.
    """
    mixing = columns.mixing.to(left_out.gram)
    draws = max(1, mixing.shape[1] // max(count, 1))
    eigenvalues = []
    for draw in range(draws):
        taken = mixing[:, draw::draws]  # (tokens, about count): every draw takes other columns, of all subjects
        used = taken.any(dim=1).nonzero()[:, 0]
        # Only the tokens of this draw are taken out of S; the others stay retained.
        moment = taken[used].T @ left_out.part(used).without() @ taken[used]
        moment = moment / float(columns.weights[draw::draws].sum())
        eigenvalues.append(torch.linalg.eigvalsh((moment + moment.T) / 2))
    return torch.cat(eigenvalues)


def least_threshold(shrinkage: float, answer_share: float) -> float:
    """-(1/2) log((1 - rho) share): what (1/2) log lambda cannot exceed if forget and retain set are equal.

    S holds (1 - rho) share times the second moment of the retain answers. A threshold at least this high makes equal
    sets give no edit.

    Args:
        shrinkage: rho.
        answer_share: Share of the answers in C.
    """
    held = (1 - shrinkage) * answer_share
    return -0.5 * math.log(held) if held > 0 else 0.0


def threshold(eigenvalues: Tensor, quantile: float, least: float) -> float:
    """tau = (1/2) log of a quantile of the null, but at least ``least``.

    Args:
        eigenvalues: From :func:`null_eigenvalues`.
        quantile: Between 0 and 1.
        least: From :func:`least_threshold`.
    """
    value = float(torch.quantile(eigenvalues, quantile))
    return max(least, 0.5 * math.log(max(value, torch.finfo(torch.float64).tiny)))
