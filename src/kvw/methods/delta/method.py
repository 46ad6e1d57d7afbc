"""Delta-unlearning: training a small model through a frozen one; see docs/methods/delta.md."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from kvw.data import Example, prepare
from kvw.data.rendering import Processor
from kvw.edits.companion import Companion, picture_tokens
from kvw.edits.edit import EditMetadata
from kvw.edits.offset import CHECKPOINT, FINGERPRINT, OffsetEdit
from kvw.errors import UserError
from kvw.measuring.engine import evaluating
from kvw.measuring.fingerprint import combined_digest, weight_digests
from kvw.methods.gradient.method import GradientMethod
from kvw.methods.gradient.settings import TrainedSettings
from kvw.methods.registry import get_method
from kvw.models.checkpoint import find_checkpoint
from kvw.models.loading import load_model, load_processor
from kvw.progress import Progress
from kvw.training.objective import Sets
from kvw.training.result import Result
from kvw.training.running import run


def train_offset(
    model: PreTrainedModel,
    processor: Processor,
    forget: Sequence[Example],
    retain: Sequence[Example],
    settings: TrainedSettings,
    *,
    small: PreTrainedModel | None = None,
    state: Path | None = None,
    progress: Progress | None = None,
) -> tuple[OffsetEdit, Result]:
    """Minimise an objective of log softmax(l_M + alpha (log o' - log o)) over the weights of o'.

    Only the small model has gradients; of the model itself logits are enough. Methods with a reference compare with
    the model alone.

    Args:
        model: M; not changed.
        processor: Its processor; the small model reads what that makes.
        forget: What must go.
        retain: What must stay.
        settings: Where o is, which objective, how to train.
        small: o, to be changed; None loads it.
        state: Where to save how far training has come, and to go on from.
        progress: Called with the steps done and their total.

    Raises:
        UserError: The small model cannot be used beside this one, or training cannot go on.
    """
    own, of = settings.method_settings, {}
    if small is None:
        checkpoint = find_checkpoint(own.offset)
        of = {CHECKPOINT: own.offset, FINGERPRINT: combined_digest(weight_digests(checkpoint.folder))}
        small = load_model(checkpoint, model.device)
    frozen = copy.deepcopy(small).requires_grad_(False)
    chosen = get_method(own.objective)
    if not isinstance(chosen, GradientMethod):
        raise ValueError(f"{own.objective} is no gradient method")
    sets: Sets = {
        "forget": prepare(forget, processor, model.config),
        "retain": prepare(retain, processor, model.config),
    }
    with through(small, frozen, model, own.alpha):
        result = run(
            small,
            processor,
            sets,
            "delta-unlearning",
            chosen.building(small, chosen.own()),
            settings.training,
            settings={"objective": own.objective, "alpha": own.alpha},
            reference=model,
            state=state,
            progress=progress,
        )
    weights = {name: value.detach().to("cpu", copy=True) for name, value in result.weights.items()}
    return OffsetEdit(weights, own.alpha, EditMetadata(method="delta-unlearning", settings=of), frozen.eval()), result


@contextmanager
def through(small: PreTrainedModel, frozen: PreTrainedModel, model: PreTrainedModel, alpha: float) -> Iterator[None]:
    """Let a small model answer, for the block, what a model says with the small one's change added.

    Args:
        small: o'; its forward takes what that of ``model`` takes meanwhile.
        frozen: o.
        model: M; run without gradients.
        alpha: Factor of the change.
    """
    own: Any = small.forward

    def before(**inputs: Any) -> Any:
        with torch.no_grad():
            return frozen(**inputs)

    @functools.wraps(model.forward)
    def forward(**named: Any) -> Any:
        with evaluating(model), torch.no_grad():
            output = model(**named)
        output.logits = companion.add(output.logits, alpha, named, None)
        return output

    companion = Companion(frozen, before, own, picture_tokens(model))
    frozen.train(False)
    small.__dict__["forward"] = forward
    try:
        yield
    finally:
        del small.__dict__["forward"]


def check_vocabulary(processor: Any, offset: str) -> None:
    """Refuse a small model whose tokens are not those of the model.

    Raises:
        UserError: It is so, or there is no such checkpoint.
    """
    other = load_processor(find_checkpoint(offset))
    mine, its = (getattr(one, "tokenizer", one).get_vocab() for one in (processor, other))
    if mine != its:
        differ = sum(its.get(token) != place for token, place in mine.items())
        raise UserError(
            "The small model has another tokenizer, so its logits are about other tokens.",
            found=f"{differ:,} of {len(mine):,} tokens differ",
            do="take a smaller model of the same family",
        )
