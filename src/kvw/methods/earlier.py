"""What a method needs of an earlier request, so that its data can be deleted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from kvw.edits.algebra import derived_metadata
from kvw.edits.edit import read_metadata
from kvw.edits.low_rank import LowRankEdit
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
EDIT = "edit"
"""In front of the names of the edit's tensors, and the entry with its metadata."""


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
        edit: The edit by which the request was forgotten; None if it was not kept.
    """

    tokens: Mapping[MatrixKey, Tokens]
    facts: tuple[str, ...]
    subjects: tuple[str, ...]
    salt: str
    fingerprint: Mapping[str, str]
    edit: LowRankEdit | None = None

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
        edit = self.edit.tensors() if self.edit else {}
        return {
            f"{key}.{field}": getattr(value, field).contiguous()
            for key, value in self.tokens.items()
            for field in FIELDS
        } | {f"{EDIT}.{name}": value.contiguous() for name, value in edit.items()}

    def _metadata(self) -> dict[str, str]:
        stated = {
            "format": FORMAT,
            "facts": json.dumps(self.facts),
            "subjects": json.dumps(self.subjects),
            "salt": self.salt,
            "fingerprint": json.dumps(dict(self.fingerprint), sort_keys=True),
        }
        if self.edit is not None:
            stated[EDIT] = self.edit.metadata.model_dump_json()
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
            of_edit = {name: tensors.pop(name) for name in [*tensors] if name.startswith(f"{EDIT}.")}
            keys = dict.fromkeys(MatrixKey.parse(name.rpartition(".")[0]) for name in tensors)
            found = cls(
                {key: Tokens(*(tensors[f"{key}.{field}"] for field in FIELDS)) for key in keys},
                tuple(json.loads(stated["facts"])),
                tuple(json.loads(stated["subjects"])),
                stated["salt"],
                json.loads(stated["fingerprint"]),
                _edit_of(of_edit, stated.get(EDIT)),
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


def _edit_of(tensors: Mapping[str, Tensor], metadata: str | None) -> LowRankEdit | None:
    if metadata is None:
        return None
    named = {name.removeprefix(f"{EDIT}."): value for name, value in tensors.items()}
    return LowRankEdit.from_tensors(named, read_metadata(metadata))


def in_force(requests: Sequence[Earlier]) -> LowRankEdit | None:
    """One edit that does what the edits of earlier requests do.

    An edit that was made with an earlier one in force holds it already, so that one does not act twice.

    Args:
        requests: Earlier requests.

    Returns:
        The edit; None if no request has one.
    """
    edits = [one.edit for one in requests if one.edit is not None]
    last = [one for one in edits if not any(other.metadata.holds(one.metadata) for other in edits)]
    last = [one for place, one in enumerate(last) if all(one.digest() != other.digest() for other in last[:place])]
    if len(last) < 2:
        return last[0] if last else None
    return LowRankEdit.joined(last, derived_metadata("compose", [one.metadata for one in last]))


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
