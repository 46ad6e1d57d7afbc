"""Second moments kept on disk: those of the shipped retain sources serve every request on a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from kvw.cache import cache_directory
from kvw.checked import read_checked, tell_damaged, write_checked
from kvw.errors import UserError
from kvw.measuring.fingerprint import digest
from kvw.measuring.moments import Moment
from kvw.models.value_matrix import MatrixKey

logger = logging.getLogger(__name__)

LARGEST = 2**31
"""Bytes; larger moments are measured again: they would fill the disk of whoever tries many models."""


class KeptMoments:
    """The place of the second moments of one set of examples in the cache directory.

    Args:
        fingerprint: Everything that they depend on.
    """

    def __init__(self, fingerprint: Mapping[str, str]) -> None:
        self._path = cache_directory() / "moments" / f"{digest(dict(fingerprint))}.safetensors"

    @property
    def path(self) -> Path:
        """Where the file is, or would be."""
        return self._path

    def load(self) -> dict[MatrixKey, Moment] | None:
        """What :meth:`keep` was given; None if there is nothing, or if it is damaged."""
        content = read_checked(self._path)
        if content is None:
            return None
        try:
            tensors = safetensors.torch.load(content)
            keys = [MatrixKey.parse(name.removesuffix(".sums")) for name in tensors if name.endswith(".sums")]
            return {
                key: Moment(tensors[f"{key}.sums"], tensors[f"{key}.masses"], int(tensors[f"{key}.count"]))
                for key in keys
            }
        except (SafetensorError, KeyError, ValueError) as error:
            tell_damaged(self._path, str(error))
            return None

    def keep(self, moments: Mapping[MatrixKey, Moment]) -> None:
        """Keep moments for the next run, unless they are too large."""
        if sum(moment.sums.numel() * moment.sums.element_size() for moment in moments.values()) > LARGEST:
            return
        tensors = {}
        for key, moment in moments.items():
            tensors[f"{key}.sums"] = moment.sums.cpu().contiguous()
            tensors[f"{key}.masses"] = moment.masses.contiguous()
            tensors[f"{key}.count"] = torch.tensor(moment.count)
        try:
            write_checked(self._path, safetensors.torch.save(tensors))
        except UserError as error:
            logger.warning("the second moments could not be kept for the next run: %s", error)
