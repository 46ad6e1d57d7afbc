"""A model that is changed for a while and gets its weights back bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from transformers import PreTrainedModel

from kvw.edits.edit import Edit
from kvw.edits.weight_edit import WeightEdit
from kvw.errors import UserError
from kvw.models.quantised import quantisation
from kvw.training.result import RECORD, apply_result

PutOn = Callable[[PreTrainedModel], AbstractContextManager[object]]
"""Puts what unlearning has made onto a model for the length of a block, and takes it off again."""


@contextmanager
def weights_kept(model: PreTrainedModel, names: Iterable[str] | None = None) -> Iterator[None]:
    """Give a model its parameters and buffers back after the block, bit for bit, also if the block raises.

    Takes main memory for a copy of them.

    Args:
        model: Its weights may be changed in the block, not exchanged for others of another shape or dtype.
        names: Names of the parameters that the block changes; None for all parameters and buffers.

    Raises:
        UserError: The model has no such weights, or they are quantised or not in memory and could not be changed.
    """
    _check_changeable(model)
    live = _tensors(model)
    wanted = list(live if names is None else names)
    if missing := [name for name in wanted if name not in live]:
        raise UserError(
            f"The change does not fit this {type(model).__name__}.",
            found=f"no weight {', '.join(missing[:3])}",
            do="use it with the model that it was made from",
        )
    before = {name: live[name].detach().to("cpu", copy=True) for name in wanted}
    try:
        yield
    finally:
        live = _tensors(model)
        with torch.no_grad():
            for name, value in before.items():
                live[name].copy_(value)


@contextmanager
def folded(model: PreTrainedModel, edit: Edit) -> Iterator[None]:
    """Fold an edit into a model for the length of the block.

    An edit that acts only by hooks is attached instead.

    Raises:
        UserError: The edit is for another model, or see :func:`weights_kept`.
    """
    if not isinstance(edit, WeightEdit):
        with edit.attach(model):
            yield
        return
    with weights_kept(model, (part.parameter for part in edit.parts(model))):
        edit.fold(model)
        yield


@contextmanager
def trained_weights(model: PreTrainedModel, folder: Path, share: float = 1.0) -> Iterator[None]:
    """Put what :meth:`kvw.training.result.Result.save` has written into a model for the length of the block.

    Args:
        model: The model that it was trained from.
        folder: What was written.
        share: How much of it, from 0 to 1: W + share (W' - W) for the weights W before and W' after the training. Under
            LoRA this is the adapter's B times ``share``. 0 and 1 give W and W' bit for bit.

    Raises:
        UserError: It is for another model, or see :func:`weights_kept`.
    """
    changed = json.loads((folder / RECORD).read_text("utf-8"))["changed"]
    with weights_kept(model, changed):
        live = _tensors(model)
        before = {name: live[name].detach().clone() for name in changed} if share < 1 else {}
        apply_result(model, folder)
        with torch.no_grad():
            for name, value in before.items():
                live[name].copy_(torch.lerp(value, live[name], share))
        yield


def _tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _check_changeable(model: PreTrainedModel) -> None:
    for name, module in model.named_modules():
        scheme = quantisation(module)
        if scheme:
            raise UserError(
                f"{name} holds quantised weights, which attacks cannot change.",
                found=scheme,
                do="attack the full-precision checkpoint",
            )
    absent = [name for name, value in _tensors(model).items() if value.is_meta]
    if absent:
        raise UserError(
            "Some weights are kept out of the way between forwards, where attacks cannot change them.",
            found=", ".join(absent[:3]) + (", ..." if len(absent) > 3 else ""),
            do="load the model whole, on one device",
        )
