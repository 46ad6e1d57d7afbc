"""Whom the retain sources of a run ask about: not everybody whom no file names is new to the run."""

from __future__ import annotations

from collections.abc import Sequence

from kvw.data import Example
from kvw.evaluation.loaded import Loaded
from kvw.folding import words
from kvw.models.loading import is_text_model
from kvw.progress import Progress
from kvw.records.run import RunRecord
from kvw.retain.gaps import same_name
from kvw.retain.neighbours import read_names
from kvw.retain.sources import NAMED, gather
from kvw.runs.request import EraseRequest


class Named:
    """The names that a run asks about by itself.

    Args:
        names: The names, as they are written.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = {tuple(words(name)) for name in names}

    def __contains__(self, subject: str) -> bool:
        """Whether one of the names contains the subject, or is in it, word by word."""
        return any(same_name(words(subject), name) for name in self._names if name)


def named_by(
    run: RunRecord, request: EraseRequest, loaded: Loaded, forget: Sequence[Example], progress: Progress
) -> Named:
    """Whom the sources of a run ask about: the shipped questions of fact, and the neighbours.

    Args:
        run: Says which sources there were.
        request: Says whom the user names.
        loaded: The original model; what it has answered before is in the cache.
        forget: The forget set.
        progress: As for :func:`kvw.retain.sources.gather`.

    Raises:
        UserError: See :func:`kvw.retain.sources.gather`.
    """
    used = [part.name for part in run.selection.sources] if run.selection else []
    gathered = gather(
        loaded,
        forget,
        sources=[name for name in used if name in NAMED],
        names=read_names(request.neighbours) if request.neighbours else None,
        takes_images=not is_text_model(loaded.model.config),
        progress=progress,
    )
    return Named([example.subject or "" for source in gathered for example in source.examples])
