"""What measuring leaves behind: sums and counts for each value matrix, never stored activations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kvw.errors import UserError
from kvw.files import write_bytes
from kvw.models.value_matrix import MatrixKey

FORMAT = "kvw statistics 2"


EPSILON = 1e-12
"""Added to both means before the logarithm, as in the authors' code."""


@dataclass(frozen=True)
class Statistics:
    """Sums of absolute coefficients and how many positions they run over.

    Args:
        sums: For each value matrix the sum of abs(m): (width,), float64, on the CPU.
        counts: For each value matrix the number of positions summed.
        fingerprint: What the sums depend on (model, data, prompt template, ...), each part as a digest; empty if
            the caller brought their own batches.
    """

    sums: Mapping[MatrixKey, Tensor]
    counts: Mapping[MatrixKey, int]
    fingerprint: Mapping[str, str] = field(default_factory=dict)

    def coefficients(self, key: MatrixKey) -> Tensor:
        """Mean absolute coefficients C = sum of abs(m) / count: (width,), float64; NaN where nothing was seen."""
        return self.sums[key] / self.counts[key]

    def within(self, layers: tuple[int, int]) -> Statistics:
        """The statistics of a range of layers, first and last included."""
        keys = [key for key in self.sums if layers[0] <= key.layer <= layers[1]]
        return Statistics(
            {key: self.sums[key] for key in keys}, {key: self.counts[key] for key in keys}, self.fingerprint
        )

    def save(self, path: Path) -> None:
        """Write a safetensors file.

        Raises:
            UserError: The place cannot be written; an older file there is untouched.
        """
        metadata = {
            "format": FORMAT,
            "counts": json.dumps({str(key): count for key, count in self.counts.items()}),
            "fingerprint": json.dumps(dict(self.fingerprint)),
            "sha256": self._digest(),
        }
        tensors = {f"{key}.sums": value.contiguous() for key, value in self.sums.items()}
        write_bytes(path, safetensors.torch.save(tensors, metadata))

    def _digest(self) -> str:
        """SHA-256 over everything that the file holds."""
        digest = hashlib.sha256(json.dumps([FORMAT, dict(self.fingerprint)], sort_keys=True).encode("utf-8"))
        for key in sorted(self.sums, key=str):
            values = self.sums[key].contiguous()
            digest.update(f"{key} {self.counts[key]!r} {values.dtype} {list(values.shape)}".encode())
            digest.update(values.view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read what :meth:`save` wrote.

        Raises:
            UserError: There is no such file, or it is not a statistics file of this format.
        """
        if not path.is_file():
            raise UserError(
                f"There is no statistics file {path}.", do="make one with: kvw measure MODEL --data FILE --out FILE"
            )
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise UserError(
                        f"{path} is not a statistics file that this version reads.",
                        found=f"format {metadata.get('format')!r}",
                        do=f"expected {FORMAT!r}",
                    )
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            stored = json.loads(metadata["counts"])
            counts = {MatrixKey.parse(name): count for name, count in stored.items()}
            sums = {key: tensors[f"{key}.sums"] for key in counts}
            statistics = cls(sums, counts, json.loads(metadata["fingerprint"]))
            names = [str(key) for key in counts]
            if metadata["sha256"] != statistics._digest() or (names, len(tensors)) != (list(stored), len(counts)):
                raise ValueError("another SHA-256")
            return statistics
        except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is not a complete statistics file.",
                found=f"{type(error).__name__}: {error}",
                do="make it again with: kvw measure MODEL --data FILE --out FILE",
            ) from error


def differing_parts(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Names of the fingerprint parts that are not equal, in the order of ``wanted``."""
    names = list(wanted) + [name for name in found if name not in wanted]
    return [name for name in names if wanted.get(name) != found.get(name)]


def accessor(forget: Tensor, retain: Tensor | None) -> Tensor:
    """The paper's forget knowledge accessor, A = max(0, log(C_f + 1e-12) - log(C_r + 1e-12)).

    Without a retain set the mean of C_f over the layer takes the place of C_r: a vector is weakened by how much more
    active than the layer's average it is on the forget set. (The paper reports this ablation; this formula for it is
    ours.)

    Args:
        forget: C_f of one value matrix: (width,).
        retain: C_r of the same matrix: (width,), or None.

    Returns:
        A, at least 0: (width,), in the dtype of ``forget``.
    """
    reference = forget.mean() if retain is None else retain
    return (torch.log(forget + EPSILON) - torch.log(reference + EPSILON)).clamp(min=0)
