"""Running methods that train, as methods of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvw.data import Example
from kvw.data.benchmarks import Item
from kvw.evaluation.loaded import Loaded
from kvw.methods.trained import Trained
from kvw.progress import Progress
from kvw.training.keeping import weights_kept


def first_wrong_answers(items: Sequence[Item]) -> tuple[str, ...]:
    """The first wrong answer of each item, which DPO prefers; empty if one of them has none."""
    return tuple(item.perturbed[0] for item in items) if all(item.perturbed for item in items) else ()


def train_and_put_back(
    method: Trained[Any],
    loaded: Loaded,
    forget: Sequence[Example],
    retain: Sequence[Example],
    settings: Any,
    others: Sequence[str],
    folder: Path,
    state: Path,
    progress: Progress,
) -> None:
    """Unlearn by training, write what changed, and give the model its weights back bit for bit.

    Args:
        method: The method.
        loaded: The model; takes main memory for a copy of its weights meanwhile.
        forget: Forget examples.
        retain: Retain examples.
        settings: Settings of the method.
        others: From :func:`first_wrong_answers`; for methods that prefer them, if the recipe gives none.
        folder: Where the result goes; it appears when it is complete.
        state: Where training keeps its state, and goes on from it; removed at the end.
        progress: Called with steps done and their number.

    Raises:
        UserError: See :meth:`kvw.methods.trained.Trained.train`.
    """
    settings = method.preferring(settings, others)
    state.parent.mkdir(parents=True, exist_ok=True)
    with weights_kept(loaded.model):
        method.train(loaded, forget, retain, settings, state=state, progress=progress).save(folder)
    state.unlink(missing_ok=True)
