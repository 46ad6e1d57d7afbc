"""Answers that are kept between runs: of the same model, edit, data, settings and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvw.data import Example
from kvw.edits.edit import Edit
from kvw.evaluation.journal import ANSWERS, Journal
from kvw.measuring.fingerprint import digest
from kvw.measuring.in_memory import InMemory
from kvw.models.placement import execution_device
from kvw.processes import current
from kvw.progress import Reporter


def kept_answers(
    loaded: InMemory, examples: Sequence[Example], max_new_tokens: int, edit: Edit | None = None
) -> Journal:
    """Where answers and probabilities are kept as they come, with those that an earlier run has left.

    Several processes keep nothing: they must agree on what is left to be asked, and their machines may have caches of
    their own. Nor is anything kept of a model that only a program has in memory.

    Args:
        loaded: The model.
        examples: All that it is asked.
        max_new_tokens: The longest answer.
        edit: What is attached to it.
    """
    conditions = loaded.conditions(examples)
    if current().size > 1 or conditions is None:
        return Journal(None)
    generation = loaded.model.generation_config
    return Journal(
        {
            **conditions,
            "edit": _edit_digest(edit, conditions) if edit else "none",
            "device": execution_device(loaded.model).type,
            "generation settings": digest(generation.to_dict() if generation else None),
            "longest answer": str(max_new_tokens),
        }
    )


def tell_kept(journal: Journal, reporter: Reporter, more: str = "") -> None:
    """Say how many answers need not be asked for."""
    if count := journal.count(ANSWERS):
        reporter.note(f"{count} answers are there from an earlier run{more}.")


def _edit_digest(edit: Edit, conditions: Mapping[str, str]) -> str:
    """What an edit does: its numbers and where they go."""
    return digest(edit.digest(), edit.metadata.value_matrices, conditions["value matrices"])
