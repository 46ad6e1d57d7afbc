"""How the methods of a recipe make their edits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from kvw.data import Example, answer_batch, image_groups, prepare
from kvw.edits.edit import Edit
from kvw.measuring.engine import Batch
from kvw.measuring.examples import measure_examples
from kvw.measuring.fingerprint import examples_digest
from kvw.measuring.statistics import Statistics
from kvw.methods.kvw import one_shot, weaken
from kvw.methods.settings import KvwSettings
from kvw.methods.steering.direction import ContrastPairs
from kvw.methods.steering.gate import GateReport
from kvw.methods.steering.method import steering
from kvw.methods.steering.settings import SteeringSettings
from kvw.methods.subspace.labels import Labels
from kvw.methods.subspace.method import subspace
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.models.families import find_value_matrices, select_layers
from kvw.progress import Progress
from kvw.runs.erase import ForgetBatches
from kvw.runs.loaded import Loaded

ROWS_PER_BATCH = 16
"""Examples of a forward of subspace weakening, which does not fit batches to memory by itself."""


def kvw_edit(
    loaded: Loaded, forget: Sequence[Example], retain: Sequence[Example], settings: KvwSettings, progress: Progress
) -> Edit:
    """KVW; the statistics of the retain set, and for one-shot of the forget set too, are kept between settings."""
    matrices = select_layers(find_value_matrices(loaded.model), settings.layers)
    layers = (matrices[0].key.layer, matrices[-1].key.layer)

    def statistics(examples: Sequence[Example]) -> Statistics:
        return measure_examples(
            loaded.model,
            loaded.processor,
            prepare(examples, loaded.processor),
            layers=loaded.all_layers,
            positions=settings.positions,
            fingerprint=loaded.statistics_fingerprint(examples, settings.positions),
            progress=progress,
        ).statistics

    reference = statistics(retain) if settings.retain_contrast else None
    if settings.schedule == "one-shot":
        found = statistics(forget).within(layers)
        steps = settings.steps(len(forget))
        edit: Edit = one_shot(found, reference, gamma=settings.gamma, steps=steps, min_tokens=settings.min_tokens)
    else:
        batches = ForgetBatches(prepare(forget, loaded.processor), loaded.processor)
        edit = weaken(loaded.model, batches, reference, progress=progress, **asdict(settings))
    return _described(edit, loaded, forget, retain, asdict(settings) | edit.metadata.settings)


def subspace_edit(
    loaded: Loaded, forget: Sequence[Example], retain: Sequence[Example], settings: SubspaceSettings, progress: Progress
) -> Edit:
    """Subspace weakening; a fact is what the same answer says about the same subject."""
    (forget_batches, forget_labels), (retain_batches, retain_labels) = (
        _labelled(examples, loaded) for examples in (forget, retain)
    )
    edit = subspace(
        loaded.model,
        forget_batches,
        retain_batches,
        settings,
        forget_labels=forget_labels,
        retain_labels=retain_labels,
        progress=progress,
    )
    return _described(edit, loaded, forget, retain, edit.metadata.settings)


def steering_edit(
    loaded: Loaded,
    forget: Sequence[Example],
    retain: Sequence[Example],
    settings: SteeringSettings,
    progress: Progress,
    *,
    pairs: ContrastPairs | None = None,
    on_layer: Callable[[GateReport], None] | None = None,
) -> Edit:
    """Steering; without pairs from the forget set's answers towards refusals."""
    edit = steering(
        loaded.model,
        loaded.processor,
        forget,
        retain,
        settings,
        pairs=pairs,
        on_layer=on_layer,
        progress=progress,
    )
    return _described(edit, loaded, forget, retain, edit.metadata.settings)


def _labelled(examples: Sequence[Example], loaded: Loaded) -> tuple[list[Batch], Labels]:
    """Batches, and fact and subject of every example in the order in which they run."""
    prepared = prepare(examples, loaded.processor)
    batches: list[Batch] = []
    order: list[int] = []
    for places in image_groups(prepared):
        for start in range(0, len(places), ROWS_PER_BATCH):
            part = places[start : start + ROWS_PER_BATCH]
            batches.append(answer_batch([prepared[place] for place in part], loaded.processor))
            order += part
    subjects = [str(examples[place].metadata["subject"]) for place in order]
    facts = [(subject, examples[place].answer) for subject, place in zip(subjects, order, strict=True)]
    return batches, Labels(facts, subjects)


def _described(
    edit: Edit, loaded: Loaded, forget: Sequence[Example], retain: Sequence[Example], settings: dict[str, Any]
) -> Edit:
    """The edit with its origin in its metadata."""
    edit.metadata = edit.metadata.model_copy(
        update={
            "settings": settings,
            "base_model": str(loaded.checkpoint),
            "model_fingerprint": loaded.fingerprint,
            "model_type": loaded.model.config.model_type,
            "forget_digest": examples_digest(forget),
            "forget_count": len(forget),
            "retain_digest": examples_digest(retain),
            "retain_count": len(retain),
        }
    )
    return edit
