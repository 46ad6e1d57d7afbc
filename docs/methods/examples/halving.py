"""Halves the knowledge vectors that forget answers use most beside retain answers."""

from dataclasses import dataclass

from kvw import Method, Unlearned


@dataclass(frozen=True)
class Settings:
    """Halving: the knowledge vectors that the forget set uses most are halved.

    Args:
        share: Of the knowledge vectors of each value matrix.
    """

    share: float = 0.05


class Halving(Method[Settings]):
    name, settings = "halving", Settings

    def make(self, loaded, forget, retain, settings, progress):
        from kvw import GateEdit  # here, so that listing the method does not import torch

        forget, retain = (loaded.measure(examples).statistics for examples in (forget, retain))
        log_gates = {}
        for key in forget.sums:
            used = forget.coefficients(key) / (retain.coefficients(key) + 1e-12)
            chosen = used > used.quantile(1 - settings.share)
            log_gates[key] = -0.6931 * chosen.float()
        return Unlearned(GateEdit(log_gates))


METHOD = Halving()
