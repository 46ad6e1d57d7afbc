"""What ``kvw erase`` says of a request before the passes, and of an edit before it is tried."""

from __future__ import annotations

from dataclasses import asdict

from kvw.errors import UserError
from kvw.evaluation.loaded import Loaded
from kvw.methods.method import Unlearned
from kvw.progress import Reporter
from kvw.runs.request import EraseRequest
from kvw.runs.terms import Terms


def tell_of_request(request: EraseRequest, loaded: Loaded, reporter: Reporter) -> None:
    """What the user should know and need not put right."""
    if loaded.quantised and request.writes_model:
        reporter.warn(
            f"Measured and scored as {loaded.quantised}; the model that is written has the precision of its source, "
            "and its scores will differ."
        )
    if request.save_model and not request.writes_model:
        reporter.note(
            f"{request.made_by.name.capitalize()} acts while the model runs, so no model is written: use the edit with "
            "kvw chat, kvw evaluate, kvw serve, or attach it."
        )
    if not getattr(loaded.processor, "has_own_template", True):
        reporter.warn("The tokenizer has no chat template: questions are asked as 'Question: ...', 'Answer:'.")


def tell_of_method(unlearned: Unlearned, request: Terms, reporter: Reporter) -> None:
    """Pass on what the method warns of."""
    for warning in unlearned.warnings:
        reporter.warn(warning)
    if left_alone := len(unlearned.edit.metadata.left_alone):
        reporter.warn(
            f"{left_alone} experts saw {_too_few(request)} answer tokens and were left alone; "
            "the edit file lists them. More examples, or a lower --min-tokens, reach them."
        )


def refuse_no_edit(unlearned: Unlearned, request: Terms) -> None:
    """Stop before the model is scored again and written if the edit does nothing.

    Raises:
        UserError: It does nothing; the message says why, as far as the method knows.
    """
    edit = unlearned.edit
    if not edit.describe() and edit.metadata.left_alone:
        raise UserError(
            "Nothing would be weakened: no part of the model saw enough tokens.",
            found=f"{len(edit.metadata.left_alone)} experts with {_too_few(request)} answer tokens",
            do="give more examples, or lower --min-tokens",
        )
    if edit.does_nothing:
        raise UserError(
            "Nothing would be weakened, so nothing was written.",
            found=" ".join(unlearned.warnings) or "an edit with which the model stays as it is",
            do="leave out of the retain set what the forget set is about, or take stronger settings",
        )


def _too_few(request: Terms) -> str:
    """How few answer tokens are too few; methods without a setting for that do not say."""
    fewest = asdict(request.settings).get("min_tokens")
    return "too few" if fewest is None else f"fewer than {fewest}"
