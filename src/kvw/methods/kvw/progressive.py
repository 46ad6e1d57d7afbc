"""The two ways in which a progressive run weakens the model while it goes on."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

import torch
from torch import Tensor

from kvw.edits.edit import Edit, EditMetadata
from kvw.edits.gates import GateEdit
from kvw.edits.rounded_gates import KeptWeights, RoundedGateEdit
from kvw.measuring.recorder import Recorder
from kvw.models.value_matrix import MatrixKey, ValueMatrix


class ScaledCoefficients:
    """Exact: log-gates add up in float32 and scale coefficients in the recorder's hooks; no weight is touched."""

    def __init__(self, matrices: Sequence[ValueMatrix], recorder: Recorder) -> None:
        self._recorder = recorder
        self._log_gates: dict[MatrixKey, Tensor] = {}
        self._widths = {matrix.key: matrix.width for matrix in matrices}

    def step(self, exponents: Mapping[MatrixKey, Tensor]) -> None:
        """Add the log-gates of one step: (width,) for each value matrix."""
        for key, exponent in exponents.items():
            sum_so_far = self._log_gates.get(key)
            update = exponent.float()
            self._log_gates[key] = update if sum_so_far is None else sum_so_far + update
            self._recorder.gates[key] = self._log_gates[key].exp()

    def edit(self, metadata: EditMetadata) -> Edit:
        """All steps so far as one edit."""
        gates = {key: self._log_gates.get(key, torch.zeros(width)) for key, width in self._widths.items()}
        return GateEdit({key: gate for key, gate in gates.items() if touched(key, self._log_gates)}, metadata)

    def __enter__(self) -> ScaledCoefficients:
        return self

    def __exit__(self, *_: object) -> None:
        self._recorder.gates.clear()


class RoundedWeights:
    """The authors' way: every step's gate is rounded to the weights' dtype and multiplied into them in place.

    The originals are put back at the end of the block.
    """

    def __init__(self, matrices: Sequence[ValueMatrix]) -> None:
        self._matrices = {matrix.key: matrix for matrix in matrices}
        self._steps: dict[MatrixKey, list[Tensor]] = {key: [] for key in self._matrices}
        self._originals: KeptWeights | None = None

    def step(self, exponents: Mapping[MatrixKey, Tensor]) -> None:
        """Apply the log-gates of one step: (width,) for each value matrix."""
        for key, exponent in exponents.items():
            matrix = self._matrices[key]
            weight = matrix.read()
            gates = exponent.float().exp().to(weight.dtype)
            matrix.write(weight * matrix.along_vectors(gates.to(weight.device)))
            self._steps[key].append(gates.cpu())

    def edit(self, metadata: EditMetadata) -> Edit:
        """All steps so far as one edit."""
        stepped = {key for key, steps in self._steps.items() if steps}
        steps = {
            key: torch.stack(steps) if steps else torch.empty(0, self._matrices[key].width)
            for key, steps in self._steps.items()
            if touched(key, stepped)
        }
        return RoundedGateEdit(steps, metadata)

    def __enter__(self) -> RoundedWeights:
        self._originals = KeptWeights(list(self._matrices.values()))
        return self

    def __exit__(self, *_: object) -> None:
        if self._originals is not None:
            self._originals.detach()


def touched(key: MatrixKey, stepped: Container[MatrixKey]) -> bool:
    """Whether a value matrix belongs into the edit: experts only if some step weakened them."""
    return key.expert is None or key in stepped
