"""What a method needs of an earlier request, so that its data can be deleted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from kvw.errors import UserError
from kvw.files import write_bytes
from kvw.measuring.fingerprint import digest, subject_digest
from kvw.measuring.moments import Tokens
from kvw.models.value_matrix import MatrixKey
from kvw.sealed import metadata_in, opened, seal

if TYPE_CHECKING:
    from kvw.methods.subspace.labels import Labels

FORMAT = "kvw request 1"
VIEWS = 3
"""Rows that are kept of a fact: the third one stands for its views that check the directions."""
FIELDS = ("coefficients", "rows", "offsets", "weights")


@dataclass(frozen=True)
class Earlier:
    """An earlier request as subspace weakening needs it: the means of its coefficients, and no text.

    Args:
        tokens: For each value matrix, float32 on the CPU. A row is not an example but the mean over up to a third of
            the views of a fact (:func:`condensed`).
        facts: Digest of the fact of each row.
        subjects: Digest of the subject of each row, see :func:`kvw.measuring.fingerprint.subject_digest`.
        salt: Goes into these digests.
        fingerprint: What the coefficients depend on.
    """

    tokens: Mapping[MatrixKey, Tokens]
    facts: tuple[str, ...]
    subjects: tuple[str, ...]
    salt: str
    fingerprint: Mapping[str, str]

    @classmethod
    def of(
        cls, tokens: Mapping[MatrixKey, Tokens], labels: Labels, salt: str, fingerprint: Mapping[str, str]
    ) -> Earlier:
        """Condense what was measured on a forget set.

        Args:
            tokens: From :func:`kvw.measuring.moment_passes.measure_tokens`.
            labels: Facts and subjects of the examples.
            salt: A random text.
            fingerprint: What the coefficients depend on.

        Raises:
            ValueError: The labels name no subjects.
        """
        if labels.subjects is None or labels.facts is None:
            raise ValueError("the examples of a request that is kept name their subjects")
        places: dict[tuple[object, int], int] = {}
        seen: dict[object, int] = {}
        rows: list[int] = []
        facts: list[str] = []
        subjects: list[str] = []
        for fact, subject in zip(labels.facts, labels.subjects, strict=True):
            view = seen[fact] = seen.get(fact, -1) + 1
            row = places.setdefault((fact, view % VIEWS), len(places))
            if row == len(facts):
                facts.append(digest(salt, "fact", fact))
                subjects.append(subject_digest(str(subject), salt))
            rows.append(row)
        views = torch.tensor(rows)
        kept = {key: condensed(value, views) for key, value in tokens.items()}
        return cls(kept, tuple(facts), tuple(subjects), salt, dict(fingerprint))

    def save(self, path: Path, key: bytes | None = None) -> None:
        """Write a safetensors file.

        Args:
            path: The file.
            key: Encrypts it, see :func:`kvw.sealed.seal`; None leaves it readable.

        Raises:
            UserError: The place cannot be written; an older file there is untouched.
        """
        content = safetensors.torch.save(self._tensors(), self._metadata())
        write_bytes(path, content if key is None else seal(content, FORMAT, key))

    def _tensors(self) -> dict[str, Tensor]:
        return {
            f"{key}.{field}": getattr(value, field).contiguous()
            for key, value in self.tokens.items()
            for field in FIELDS
        }

    def _metadata(self) -> dict[str, str]:
        stated = {
            "format": FORMAT,
            "facts": json.dumps(self.facts),
            "subjects": json.dumps(self.subjects),
            "salt": self.salt,
            "fingerprint": json.dumps(dict(self.fingerprint), sort_keys=True),
        }
        content = hashlib.sha256(safetensors.torch.save(self._tensors())).hexdigest()
        return {**stated, "sha256": digest(stated, content)}

    @classmethod
    def load(cls, path: Path, key: bytes | None = None) -> Earlier:
        """Read what :meth:`save` wrote.

        Args:
            path: The file.
            key: The key of an encrypted file.

        Raises:
            UserError: It is no such file, a byte of it is not what it was, or it is encrypted and the key is another.
        """
        try:
            content = opened(path.read_bytes(), key, path)
            stated, tensors = metadata_in(content), safetensors.torch.load(content)
            keys = dict.fromkeys(MatrixKey.parse(name.rpartition(".")[0]) for name in tensors)
            found = cls(
                {key: Tokens(*(tensors[f"{key}.{field}"] for field in FIELDS)) for key in keys},
                tuple(json.loads(stated["facts"])),
                tuple(json.loads(stated["subjects"])),
                stated["salt"],
                json.loads(stated["fingerprint"]),
            )
            if found._metadata() != stated:
                raise ValueError("another SHA-256")
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{path} is no whole file of a kept request.",
                found=f"{type(error).__name__}: {error}",
                do="give what kvw data keep has written, or an intact copy of it",
            ) from error
        return found


def condensed(tokens: Tokens, views: Tensor) -> Tokens:
    """Means of tokens over rows that become one, for each answer position.

    F is made of means, so it is the same from these, up to rounding.

    Args:
        tokens: Of one value matrix.
        views: The new row of each old one: (rows,), int64.

    Returns:
        Means in float32, each with the weights of its tokens together.
    """
    places, own = torch.unique(torch.stack([views[tokens.rows], tokens.offsets]), dim=1, return_inverse=True)
    weights = torch.zeros(places.shape[1], dtype=torch.float64).index_add(0, own, tokens.weights)
    weighted = tokens.coefficients.double() * tokens.weights[:, None]
    sums = torch.zeros(len(weights), weighted.shape[1], dtype=torch.float64).index_add(0, own, weighted)
    return Tokens((sums / weights[:, None]).float(), places[0].clone(), places[1].clone(), weights)
