"""Any method on a model in memory, in one call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from transformers import PreTrainedModel

from kvw.edits.edit import Edit
from kvw.errors import UserError
from kvw.measuring.given import Given, examples_given
from kvw.methods.registry import DEFAULT, get_method
from kvw.models.quantised import refuse_quantised
from kvw.progress import Progress, unheard, warn


def unlearn(
    model: PreTrainedModel,
    forget: Given,
    retain: Given = (),
    settings: Any = None,
    *,
    method: str = DEFAULT,
    processor: Any = None,
    on_warning: Callable[[str], None] = warn,
    progress: Progress | None = None,
) -> Edit:
    """Run any method, one that trains too; the model is left as it was.

    Nothing is chosen and nothing is judged: the edit has the strength of the settings. :func:`kvw.find_edit` chooses
    it by what must stay.

    Args:
        model: A loaded model.
        forget: Examples whose knowledge must go, or :func:`kvw.batches` of them; never empty.
        retain: The same of what must stay; may be empty for methods that do without.
        settings: Some of the method's settings by name, as ``{"beta": 0.2, "epochs": 3}``, or an object of its class
            of settings; None for the defaults. ``kvw methods NAME`` lists them.
        method: Its name, or the place of its object as ``path/to/file.py:METHOD``.
        processor: The model's processor or tokenizer; not needed beside :func:`kvw.batches`.
        on_warning: Gets told what the user should know. By default a :class:`UserWarning` says it.
        progress: Called with what is done and how much there is (0 if unknown).

    Returns:
        The edit. Of methods that train it holds every weight that they changed.

    Raises:
        UserError: There is no such method or setting, or the method cannot use the examples or the model; nothing was
            changed.
    """
    chosen = get_method(method)
    settings = chosen.settings_from(settings)
    loaded, (forgotten, kept) = examples_given(model, {"forget": forget, "retain": retain}, processor)
    if not forgotten:
        raise UserError("The forget set is empty.", do="give what is to be forgotten")
    if not kept and chosen.needs_retain(settings):
        raise UserError("Nothing says what must stay.", found="an empty retain set", do="give retain examples")
    if chosen.changes_weights_meanwhile(settings):
        for matrix in chosen.value_matrices(model, settings):
            refuse_quantised(matrix.name, matrix.module)
    unlearned = chosen.make(loaded, forgotten, kept, settings, progress or unheard)
    for warning in unlearned.warnings:
        on_warning(warning)
    edit, made = unlearned.edit, unlearned.edit.metadata
    edit.metadata = made.model_copy(
        update={
            "method": made.method or chosen.name,
            "settings": asdict(settings) | made.settings,
            "model_type": model.config.model_type,
        }
    )
    return edit
