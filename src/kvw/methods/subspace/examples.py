"""Subspace weakening and its baselines from a loaded model and examples."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from kvw.data import Example
from kvw.data.shared import ForgetSet, is_shared
from kvw.errors import UserError
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.moment_passes import measure_tokens
from kvw.methods.bounds import DistortionBounds
from kvw.methods.earlier import Earlier
from kvw.methods.method import LoadedModel, Unlearned
from kvw.methods.subspace.baselines.method import baseline
from kvw.methods.subspace.baselines.settings import BaselineSettings
from kvw.methods.subspace.labels import Labels, labels_of
from kvw.methods.subspace.method import subspace
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.methods.subspace.shared_moments import shared_moments
from kvw.models.finding import find_value_matrices
from kvw.processes import current
from kvw.progress import Progress

OWN_SHARE = 0.5
"""Share of the user's examples and neighbours in the retain moment, if there are shared examples, too."""


def subspace_edit(
    loaded: LoadedModel,
    forget: Sequence[Example],
    retain: Sequence[Example],
    settings: SubspaceSettings,
    progress: Progress,
) -> Unlearned:
    """Subspace weakening; a fact is what the same answer says about the same subject."""
    forget_batches, forget_labels = labelled(loaded, forget)
    shared, known = shared_moments(loaded, retain, settings, progress)
    own = [example for example in retain if not is_shared(example)] if known else list(retain)
    retain_batches, retain_labels = labelled(loaded, own)
    retain_labels = replace(retain_labels, masses=_masses([own[place] for place in retain_batches.order], shared))
    bounds: list[DistortionBounds] = []
    warnings: list[str] = []
    edit = subspace(
        loaded.model,
        forget_batches,
        retain_batches,
        settings,
        processor=loaded.processor,
        forget_labels=forget_labels,
        retain_labels=retain_labels,
        known=known,
        earlier=forget.earlier if isinstance(forget, ForgetSet) else (),
        on_matrix=bounds.append,
        on_warning=warnings.append,
        progress=progress,
    )
    bounds = current().broadcast(lambda: bounds)  # others are told nothing while the edit is made
    return Unlearned(edit, tuple(bounds), tuple(warnings))


def kept_of(loaded: LoadedModel, forget: Sequence[Example], progress: Progress) -> Earlier:
    """Measure a forget set and condense what a later request needs of it.

    Raises:
        UserError: The model has experts.
    """
    matrices = find_value_matrices(loaded.model)
    if any(matrix.key.expert is not None for matrix in matrices):
        raise UserError(
            "Requests to models with experts cannot be kept: which expert sees a token depends on all of them.",
            do="keep the data, and give the files of all requests to kvw erase",
        )
    batches, labels = labelled(loaded, forget)
    tokens = measure_tokens(loaded.model, batches, matrices, weights=labels.weights(), progress=progress)
    return Earlier.of(tokens, labels, secrets.token_hex(16), loaded.conditions([]) or {})


def baseline_edit(
    loaded: LoadedModel,
    forget: Sequence[Example],
    retain: Sequence[Example],
    settings: BaselineSettings,
    progress: Progress,
) -> Unlearned:
    """A baseline of subspace weakening, from the same batches with the same labels."""
    forget_batches, forget_labels = labelled(loaded, forget)
    retain_batches, retain_labels = labelled(loaded, retain)
    return Unlearned(
        baseline(
            loaded.model,
            forget_batches,
            retain_batches,
            settings,
            forget_labels=forget_labels,
            retain_labels=retain_labels,
            progress=progress,
        )
    )


def labelled(loaded: LoadedModel, examples: Sequence[Example]) -> tuple[LabelledBatches, Labels]:
    """Batches of examples, and who and what these are about in the order of the batches."""
    batches = loaded.batches(examples)
    return batches, labels_of([examples[place] for place in batches.order])


def _masses(examples: Sequence[Example], shared: int) -> list[float] | None:
    """What the subject of each retain example weighs: the user's and neighbours' make half of all; None if all 1.

    Args:
        examples: In the order of their batches.
        shared: How many shared examples there are, each of which is a subject that weighs 1.
    """
    own = {example.subject_key for example in examples if not is_shared(example)}
    if not (shared and own):
        return None
    mass = shared / len(own) * OWN_SHARE / (1 - OWN_SHARE)
    return [1.0 if is_shared(example) else mass for example in examples]
