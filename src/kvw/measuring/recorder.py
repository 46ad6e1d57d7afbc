"""The only owner of hooks while measuring: reads coefficients, scales them, and ends the forward early."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from kvw.errors import UserError
from kvw.models.coefficients import Seen, intercepted, scale_coefficients
from kvw.models.sharding import gathered
from kvw.models.value_matrix import MatrixKey, ValueMatrix


class StopForward(Exception):
    """Raised inside the last measured layer: nothing after it is needed."""


class Watcher(ABC):
    """What all recorders share: how many tokens a forward must have, and its end behind the last value matrix.

    Args:
        matrices: What is measured.
        stops: Whether the forward ends when everything in the last layer of them has been seen.
    """

    def __init__(self, matrices: Sequence[ValueMatrix], *, stops: bool = True) -> None:
        last = max(matrix.key.layer for matrix in matrices)
        self._last = {id(matrix.module) for matrix in matrices if matrix.key.layer == last}
        self._stops = stops
        self._awaited: set[int] = set()
        self._tokens: int | None = None

    def announce(self, tokens: int) -> None:
        """Say how many tokens the next forward has: batch size times sequence length."""
        self._tokens = tokens
        self._awaited = set(self._last)

    def observe(self, seen: Seen) -> Tensor | None:
        """Take in the input of a value projection; return what the projection shall get instead, if it differs.

        Raises:
            UserError: The decoder sees another number of tokens than was announced.
            StopForward: Everything in the last layer has been seen, unless the forward goes on.
        """
        if self._tokens is None:
            raise RuntimeError("a forward that was not announced")
        tokens = seen.coefficients.shape[:-1].numel()
        if seen.tokens is None and tokens != self._tokens:
            raise UserError(
                f"{seen.matrices[0].name} sees {tokens} tokens where the batch has {self._tokens}.",
                do="pass input_ids in which every image placeholder is already expanded, "
                "as the model's processor returns them",
            )
        changed = self.take(seen, self._tokens)
        self._awaited.discard(id(seen.matrices[0].module))
        if self._stops and not self._awaited:
            raise StopForward
        return changed

    @abstractmethod
    def take(self, seen: Seen, tokens: int) -> Tensor | None:
        """Take in what is seen in a forward with this number of tokens; returns what :meth:`observe` does."""

    def watching(self, matrices: Sequence[ValueMatrix]) -> AbstractContextManager[None]:
        """Let :meth:`observe` see what these value matrices get, before attached edits change it, during the block."""
        return intercepted(matrices, self.observe, first=True)


class Recorder(Watcher):
    """Sums absolute coefficients over chosen positions while a model runs.

    The coefficient m_i of a token is the i-th input of the value projection. Sums stay on the device of their layer;
    nothing here waits for the device, except for the counts of experts.

    Attributes:
        sums: For each value matrix the sum of abs(m) over the positions so far: (width,), float64 (float32 on devices
            without it).
        counts: For each value matrix the number of positions summed so far. They differ where a layer does not see
            every example (cross-attention layers, for instance, run only where there is an image). An expert counts
            the positions that were routed to it, which may be none.
        gates: Factors (width,), float32, that the coefficients of a matrix are multiplied by after they were
            measured; the same function as scaling the columns of the value matrix.
    """

    def __init__(self, matrices: Sequence[ValueMatrix]) -> None:
        super().__init__(matrices)
        self._positions = torch.empty(0, dtype=torch.int64)
        self.sums: dict[MatrixKey, Tensor] = {}
        self.counts: dict[MatrixKey, int] = {}
        self.gates: dict[MatrixKey, Tensor] = {}

    def expect(self, positions: Tensor, tokens: int) -> None:
        """Announce the next forward.

        Args:
            positions: Flat indices (batch index times sequence length plus position) to be summed: (n,), int64.
            tokens: Batch size times sequence length; what the decoder sees must have as many tokens.
        """
        self._positions = positions
        self.announce(tokens)

    def restart(self) -> None:
        """Forget the sums and counts; the gates stay."""
        self.sums.clear()
        self.counts.clear()

    def take(self, seen: Seen, tokens: int) -> Tensor | None:
        """Add to sums and counts; what is returned is scaled by the gates."""
        rows = self._chosen(seen, tokens)
        chosen = seen.coefficients.flatten(0, -2).index_select(0, rows).float().abs_()
        dtype = _sum_dtype(chosen.device)
        if seen.experts is None:
            sums = gathered(chosen.sum(0, dtype=dtype), seen.matrices[0].module)[None]
            counts = [len(rows)]
        else:
            lengths = torch.bincount(seen.experts[rows], minlength=len(seen.matrices))
            # Rows lie expert by expert, so these sums do not depend on the order in which threads finish.
            sums, counts = torch.segment_reduce(chosen.to(dtype), "sum", lengths=lengths, axis=0), lengths.tolist()
        for matrix, total, count in zip(seen.matrices, sums, counts, strict=True):
            key = matrix.key
            self.sums[key] = self.sums[key] + total if key in self.sums else total
            self.counts[key] = self.counts.get(key, 0) + count
        return scale_coefficients(seen, self.gates)

    def _chosen(self, seen: Seen, tokens: int) -> Tensor:
        """Rows whose tokens are to be summed: (n,), int64."""
        device = seen.coefficients.device
        self._positions = self._positions.to(device)  # copied once, unless layers lie on several devices
        if seen.tokens is None:
            return self._positions
        wanted = torch.zeros(tokens, dtype=torch.bool, device=device)
        wanted[self._positions] = True
        return wanted[seen.tokens].nonzero()[:, 0]


@contextmanager
def recording(matrices: Sequence[ValueMatrix]) -> Iterator[Recorder]:
    """Hook the value matrices for as long as the block runs.

    Args:
        matrices: The value matrices to measure; forwards end inside the last of them.

    Yields:
        The recorder.
    """
    recorder = Recorder(matrices)
    with recorder.watching(matrices):
        yield recorder


def _sum_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
