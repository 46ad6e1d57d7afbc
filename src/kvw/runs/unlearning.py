"""Running any method from a loaded model and examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kvw.data import Example
from kvw.edits.edit import Edit
from kvw.measuring.fingerprint import examples_digest
from kvw.measuring.in_memory import InMemory
from kvw.measuring.salt import salted
from kvw.measuring.statistics import Statistics
from kvw.methods.method import Method, Unlearned
from kvw.processes import current
from kvw.progress import Progress

Retain = Sequence[Example] | Statistics
"""The retain set, or for methods that want no more its statistics."""


def unlearn(
    method: Method[Any], loaded: InMemory, forget: Sequence[Example], retain: Retain, settings: Any, progress: Progress
) -> Unlearned:
    """Run a method; the model is left as it was.

    Args:
        method: See :func:`kvw.methods.registry.get_method`.
        loaded: The model.
        forget: What must go.
        retain: What must stay.
        settings: Settings, of the method's class.
        progress: Called while the method works.

    Returns:
        The edit with its origin in its metadata, and what the method has to say.

    Raises:
        UserError: The method cannot use what it was given.
    """
    if isinstance(retain, Statistics):
        unlearned = method.make_from_statistics(loaded, forget, retain, settings, progress)
    else:
        unlearned = method.make(loaded, forget, retain, settings, progress)
    _describe(unlearned.edit, method.name, loaded, forget, retain, settings)
    return unlearned


def _describe(
    edit: Edit, method: str, loaded: InMemory, forget: Sequence[Example], retain: Retain, settings: Any
) -> None:
    """Put the origin of an edit into its metadata."""
    if isinstance(retain, Statistics):
        retain_digest, retain_count = retain.fingerprint["data"], 0  # statistics do not say of how many examples
    else:
        retain_digest, retain_count = examples_digest(retain) if retain else "", len(retain)
    # By the secret of the first process's machine: others may have another, and write none.
    digests = current().broadcast(
        lambda: (salted(examples_digest(forget)), salted(retain_digest) if retain_digest else "")
    )
    edit.metadata = edit.metadata.model_copy(
        update={
            "method": edit.metadata.method or method,
            "settings": asdict(settings) | edit.metadata.settings,
            **loaded.origin,
            "forget_digest": digests[0],
            "forget_count": len(forget),
            "retain_digest": digests[1],
            "retain_count": retain_count,
        }
    )
