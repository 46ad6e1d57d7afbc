"""Running methods that train, as methods of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kvw.bench.trained_settings import TrainedSettings
from kvw.data import Example
from kvw.data.benchmarks import Item
from kvw.evaluation.attacks.keeping import weights_kept
from kvw.methods.gradient import unlearn
from kvw.methods.gradient.settings import DpoSettings
from kvw.progress import Progress
from kvw.runs.loaded import Loaded


def first_wrong_answers(items: Sequence[Item]) -> tuple[str, ...]:
    """For each of these items its first wrong answer, which DPO prefers; empty if one of them has none."""
    return tuple(item.perturbed[0] for item in items) if all(item.perturbed for item in items) else ()


def train_and_put_back(
    loaded: Loaded,
    forget: Sequence[Example],
    retain: Sequence[Example],
    settings: TrainedSettings,
    others: Sequence[str],
    folder: Path,
    state: Path,
    progress: Progress,
) -> None:
    """Unlearn by training, write what changed, and give the model its weights back bit for bit.

    Args:
        loaded: The model; takes main memory for a copy of its weights meanwhile.
        forget: Forget examples.
        retain: Retain examples.
        settings: From :func:`kvw.bench.trained_settings.build_settings`.
        others: From :func:`first_wrong_answers`; for DPO, if the recipe gives none.
        folder: Where the result goes; it appears when it is complete.
        state: Where training keeps its state, and goes on from it; removed at the end.
        progress: Called with steps done and their number.

    Raises:
        UserError: See :func:`kvw.methods.gradient.unlearn`.
    """
    own = settings.method_settings
    if isinstance(own, DpoSettings) and not own.alternatives:
        own = replace(own, alternatives=tuple(others))
    trains = settings.training is not None
    state.parent.mkdir(parents=True, exist_ok=True)
    with weights_kept(loaded.model):
        result = unlearn(
            loaded.model,
            loaded.processor,
            forget,
            retain,
            settings.method,
            own,
            settings.training,
            state=state if trains else None,
            progress=progress,
        )
        result.save(folder)
    state.unlink(missing_ok=True)
