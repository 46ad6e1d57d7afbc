"""What a method does to a model: something that is put on for as long as the model is asked, and taken off again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import safetensors.torch
import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.edit import Edit
from kvw.errors import UserError
from kvw.training.result import ADAPTER, RECORD, WEIGHTS, apply_result


class PutOn(Protocol):
    """A change in force on a model."""

    def detach(self) -> None:
        """Take it off; the model is bit for bit what it was."""


class Change(Protocol):
    """What a method returns, whether it acts by hooks (an edit) or by other weights (training)."""

    def attach(self, model: PreTrainedModel) -> PutOn:
        """Put it onto the model that it was made from."""

    @property
    def digest(self) -> str:
        """SHA-256 that identifies it."""


@dataclass(frozen=True)
class EditChange:
    """An edit; its hooks come off.

    Args:
        edit: Any kind.
    """

    edit: Edit

    def attach(self, model: PreTrainedModel) -> PutOn:
        """See :class:`Change`."""
        return self.edit.attach(model)

    @property
    def digest(self) -> str:
        """SHA-256 over the edit's tensors."""
        return hashlib.sha256(safetensors.torch.save(self.edit.tensors())).hexdigest()


@dataclass(frozen=True)
class TrainedChange:
    """What training left behind, as :meth:`kvw.training.result.Result.save` writes it; the weights before come back.

    Args:
        folder: An adapter or changed weights, with a record that lists the weights they concern.
    """

    folder: Path

    def attach(self, model: PreTrainedModel) -> PutOn:
        """See :class:`Change`; takes main memory for the originals of the weights that change.

        Raises:
            UserError: The folder does not fit the model; nothing was changed.
        """
        before = WeightsBefore(model, json.loads((self.folder / RECORD).read_text("utf-8"))["changed"])
        try:
            apply_result(model, self.folder)
        except BaseException:
            before.detach()
            raise
        return before

    @property
    def digest(self) -> str:
        """SHA-256 over the file of the tensors."""
        name = WEIGHTS if (self.folder / WEIGHTS).is_file() else ADAPTER
        with (self.folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


class WeightsBefore:
    """Copies of weights in main memory, to be put back.

    Args:
        model: Whose weights.
        names: Which; all parameters if None.

    Raises:
        UserError: The model has no such weights.
    """

    def __init__(self, model: PreTrainedModel, names: Iterable[str] | None = None) -> None:
        self._model = model
        live = dict(model.named_parameters())
        names = list(live if names is None else names)
        if missing := [name for name in names if name not in live]:
            raise UserError(
                f"The change does not fit this {type(model).__name__}.",
                found=f"no weight {', '.join(missing[:3])}",
                do="use it with the model that it was made from",
            )
        self._before: Mapping[str, Tensor] = {name: live[name].detach().to("cpu", copy=True) for name in names}

    def detach(self) -> None:
        """Put them back, bit for bit."""
        live = dict(self._model.named_parameters())
        with torch.no_grad():
            for name, value in self._before.items():
                live[name].copy_(value)


@contextmanager
def put_back(model: PreTrainedModel) -> Iterator[None]:
    """Give a model all its parameters back after the block, also if the block raises."""
    before = WeightsBefore(model)
    try:
        yield
    finally:
        before.detach()


@contextmanager
def put_on(change: Change | None, model: PreTrainedModel) -> Iterator[None]:
    """Have a change, if there is one, in force during the block."""
    attached = change.attach(model) if change else None
    try:
        yield
    finally:
        if attached:
            attached.detach()
