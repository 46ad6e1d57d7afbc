"""Unlearning by name of a method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from kvw.data import Example, prepare
from kvw.data.rendering import Processor
from kvw.errors import UserError
from kvw.methods.gradient.method import GradientMethod
from kvw.methods.registry import get_method
from kvw.progress import Progress
from kvw.training.objective import Sets
from kvw.training.result import Result
from kvw.training.settings import TrainingSettings


def unlearn(
    model: PreTrainedModel,
    processor: Processor,
    forget: Sequence[Example],
    retain: Sequence[Example],
    method: str | GradientMethod,
    settings: Any = None,
    training: TrainingSettings | None = None,
    *,
    reference: PreTrainedModel | None = None,
    state: Path | str | None = None,
    progress: Progress | None = None,
) -> Result:
    """Make a model forget by a gradient method, in place.

    Args:
        model: A plain model; it is the unlearned one afterwards, with adapters merged. If this raises, adapters are
            taken off again; a model trained in full stays as far as it came.
        processor: Its processor.
        forget: Examples whose knowledge must go; never empty.
        retain: Examples whose knowledge must stay; may be empty if the method's retain weight is 0.
        method: A gradient method, or its name.
        settings: The method's settings, of the class that it states; None for its defaults.
        training: How to train; None for the defaults.
        reference: What methods with a reference compare with; None for the model before unlearning, which is what all
            papers say. (MLLMU-Bench and OFFSIDE pass the model trained without the forget set.)
        state: Where to save how far training has come; if there is a saved state, training goes on from it to the
            same final weights.
        progress: Called with the steps done and their total.

    Returns:
        What changed, with a record of every step.

    Raises:
        UserError: There is no such method, a setting or an example makes no sense, or a loss is not finite.
    """
    chosen = get_method(method) if isinstance(method, str) else method
    if not isinstance(chosen, GradientMethod):
        raise UserError(f"'{method}' is no gradient method.", do="run it with: kvw erase")
    settings = chosen.own() if settings is None else settings
    _check(chosen.name, chosen.own, settings, forget, model is reference)
    if not chosen.trains:
        _check_untrained(chosen.name, training, reference, state)
    sets: Sets = {
        "forget": prepare(forget, processor, model.config),
        "retain": prepare(retain, processor, model.config),
    }
    place = None if state is None else Path(state)
    return chosen.run(model, processor, sets, settings, training, reference=reference, state=place, progress=progress)


def _check(method: str, kind: type[Any], settings: Any, forget: Sequence[Example], its_own_reference: bool) -> None:
    if not isinstance(settings, kind):
        raise UserError(
            f"These are not settings of '{method}'.",
            found=type(settings).__name__,
            do=f"give {kind.__name__}, or nothing for the defaults",
        )
    if its_own_reference:
        raise UserError(
            "The reference is the model to be trained, and would change with it.",
            do="leave the reference out for the model as it is now",
        )
    if not forget:
        raise UserError("The forget set is empty.", do="give what is to be forgotten")


def _check_untrained(method: str, *not_for_it: object) -> None:
    if any(argument is not None for argument in not_for_it):
        raise UserError(
            f"'{method}' does not train.",
            found="training settings, a reference or a place for the state",
            do="leave them out",
        )
