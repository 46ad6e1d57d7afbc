"""Second moments of the retain examples that every request on a model shares: measured once, then read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from kvw.data import Example
from kvw.data.shared import RetainSet, is_shared
from kvw.measuring.fingerprint import digest
from kvw.measuring.kept_moments import KeptMoments
from kvw.measuring.moment_passes import measure_moments
from kvw.measuring.moments import Moment
from kvw.methods.method import LoadedModel
from kvw.methods.subspace.method import matrices_in
from kvw.methods.subspace.paths import chosen_path
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.models.placement import execution_device
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.processes import current
from kvw.progress import Progress


def shared_moments(
    loaded: LoadedModel, retain: Sequence[Example], settings: SubspaceSettings, progress: Progress | None = None
) -> tuple[int, Mapping[MatrixKey, Moment] | None]:
    """Read the second moments of the shared retain examples, or measure and keep them.

    Shared examples that this request leaves out are measured by themselves and taken out again: that is the moment of
    the others up to rounding.

    Args:
        loaded: The original model.
        retain: The retain set of the request; a :class:`~kvw.data.shared.RetainSet` if some were left out.
        settings: Say which value matrices, and how much each kind of position counts.
        progress: Called with batches done and their number.

    Returns:
        How many shared examples the retain set has, and their moments. None if they have to be measured with the
        others: there are none, several processes share the work, or the method needs more of them than moments.
    """
    shared = [example for example in retain if is_shared(example)]
    matrices = matrices_in(loaded.model, settings)
    moments_do = settings.folds == 1 and (settings.gate == "wiener" or settings.threshold is not None)
    if not shared or not moments_do or current().size > 1 or settings.schedule == "sequential":
        return len(shared), None
    if chosen_path(loaded.model, matrices, settings) == "layer by layer":
        return len(shared), None
    excluded = list(retain.excluded) if isinstance(retain, RetainSet) else []
    measured = _measured(loaded, [*shared, *excluded], matrices, settings, progress)
    if excluded:
        without = _moments(loaded, excluded, matrices, settings, None)
        measured = {key: moment - without[key] if key in without else moment for key, moment in measured.items()}
    return len(shared), measured


def _measured(
    loaded: LoadedModel,
    examples: Sequence[Example],
    matrices: Sequence[ValueMatrix],
    settings: SubspaceSettings,
    progress: Progress | None,
) -> dict[MatrixKey, Moment]:
    """From the cache, or measured and kept there."""
    conditions = loaded.conditions(examples)
    if conditions is None:
        return _moments(loaded, examples, matrices, settings, progress)
    fingerprint = {
        **conditions,
        "sources": digest(asdict(settings.sources)),
        "matrices": digest([str(matrix.key) for matrix in matrices]),
        "device": execution_device(loaded.model).type,
    }
    kept = KeptMoments(fingerprint)
    if (moments := kept.load()) is None:
        moments = _moments(loaded, examples, matrices, settings, progress)
        kept.keep(moments)
    device = execution_device(loaded.model)
    return {key: Moment(moment.sums.to(device), moment.masses, moment.count) for key, moment in moments.items()}


def _moments(
    loaded: LoadedModel,
    examples: Sequence[Example],
    matrices: Sequence[ValueMatrix],
    settings: SubspaceSettings,
    progress: Progress | None,
) -> dict[MatrixKey, Moment]:
    batches = loaded.batches(examples)
    moments, _ = measure_moments(loaded.model, batches, matrices, sources=settings.sources, progress=progress)
    return moments
