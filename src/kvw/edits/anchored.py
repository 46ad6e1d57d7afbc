"""A trained edit without the entries that work against another one: the merge of SMFA; see docs/edits.md."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.edits.algebra import check_same_origin, derived_metadata
from kvw.edits.edit import Edit
from kvw.edits.weights import WeightsEdit
from kvw.errors import UserError
from kvw.models.value_matrix import Parameter

TIMES = 5.0
"""Peers use 2.5, 5 and 10."""


def anchor(edit: Edit, retaining: Edit, model: PreTrainedModel, times: float = TIMES) -> WeightsEdit:
    """A trained edit with those entries taken back that outweigh and oppose what training on the retain set does.

    With D_f = W_f - W of the edit, D_a = W_a - W of the anchor and rho = |D_f| / |D_a|, both of one weight, an entry of
    D_f becomes 0 where the two have opposite signs and |D_f| > times rho |D_a|. A weight that only the edit has stays
    as it is there.

    Source: SMFA (arXiv 2511.20196), as far as summaries of the paper say; that rho is taken weight by weight is ours.

    Args:
        edit: What unlearning has trained, for instance towards refusals.
        retaining: What training on the retain set made of the same model.
        model: That model, with the weights that both were trained from; it stays as it is.
        times: k, at least 0; the larger, the fewer entries are taken back.

    Raises:
        UserError: One is no edit of weights, they were made on different models or not on this one, or ``times`` makes
            no sense.
    """
    if not (math.isfinite(times) and times >= 0):
        raise UserError(
            "times must be a finite number of at least 0.",
            found=str(times),
            do="give 5, as in the authors' code, or another number",
        )
    if not (isinstance(edit, WeightsEdit) and isinstance(retaining, WeightsEdit)):
        raise UserError(
            "Only edits of weights can be anchored.",
            found=f"{edit.kind} and {retaining.kind}",
            do="give two edits of methods that train; kvw edit show says what an edit is",
        )
    check_same_origin([edit, retaining])
    for one in (edit, retaining):
        one.check_model(model)
    merged = {}
    for name in edit.weights:
        before = model.get_parameter(name).detach()
        part = Parameter.of(model, name)
        own = edit.changed(part, before)
        if name in retaining.weights:
            other = retaining.changed(part, before)
            own = torch.where(opposed(own, other, before, times), before, own)
        merged[name] = own.to("cpu", copy=True)
    metadata = derived_metadata("anchor", [edit.metadata, retaining.metadata], times=times)
    return WeightsEdit(merged, metadata=metadata)


def opposed(edited: Tensor, anchored: Tensor, before: Tensor, times: float) -> Tensor:
    """Where the change of one weight opposes and outweighs that of another, entry by entry: bool, in its shape."""
    exact = torch.promote_types(before.dtype, torch.float32)
    own, other = (value.to(exact) - before.to(exact) for value in (edited, anchored))
    size = float(other.norm())
    if size == 0:
        return torch.zeros_like(own, dtype=torch.bool)
    ratio = float(own.norm()) / size
    return (own.sign() * other.sign() < 0) & (own.abs() > times * ratio * other.abs())
