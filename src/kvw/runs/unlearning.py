"""How methods make their edits, from a loaded model and examples: one function for each, and one that runs any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any

from kvw.data import Example, Prepared, answer_batch
from kvw.edits.conditional import ConditionalGateEdit
from kvw.edits.edit import Edit, EditMetadata
from kvw.edits.gates import GateEdit
from kvw.errors import UserError
from kvw.measuring.engine import Batch
from kvw.measuring.examples import measure_examples
from kvw.measuring.fingerprint import examples_digest
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.salt import salted
from kvw.measuring.statistics import Statistics
from kvw.methods.kvw import one_shot, weaken
from kvw.methods.registry import get_method
from kvw.methods.settings import KvwSettings
from kvw.methods.steering.conditional import find_condition
from kvw.methods.steering.conditional_settings import ConditionalKvwSettings
from kvw.methods.steering.gate import GateReport
from kvw.methods.steering.method import steering
from kvw.methods.steering.settings import SteeringSettings
from kvw.methods.subspace.certificates import Certificate, separation_warnings
from kvw.methods.subspace.labels import Labels
from kvw.methods.subspace.method import subspace
from kvw.methods.subspace.relatives.method import relative
from kvw.methods.subspace.relatives.settings import RelativeSettings
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.models.finding import find_value_matrices, select_layers
from kvw.models.layer_inputs import decoder_layers
from kvw.processes import current
from kvw.progress import Progress
from kvw.retain.shared import is_shared
from kvw.runs.loaded import Loaded
from kvw.runs.shared_moments import shared_moments

OWN_SHARE = 0.5
"""Of the retain moment, if there are shared examples too: those of the user, and neighbours."""
Retain = Sequence[Example] | Statistics
"""The retain set, or for methods that want no more its statistics."""


@dataclass(frozen=True)
class Unlearned:
    """An edit and what its method has to say about it.

    Args:
        edit: The edit.
        certificates: What was found for each value matrix, from methods that give any.
        warnings: What the user should know.
    """

    edit: Edit
    certificates: tuple[Certificate, ...] = ()
    warnings: tuple[str, ...] = ()


class ForgetBatches(Sequence[Batch]):
    """The forget set one example at a time, made when asked for."""

    def __init__(self, prepared: Sequence[Prepared], processor: Any) -> None:
        self._prepared = prepared
        self._processor = processor

    def __len__(self) -> int:
        return len(self._prepared)

    def __getitem__(self, index: Any) -> Any:
        return answer_batch([self._prepared[index]], self._processor)


def unlearn(
    method: str, loaded: Loaded, forget: Sequence[Example], retain: Retain, settings: Any, progress: Progress
) -> Unlearned:
    """Run a method by name; the model is left as it was.

    Args:
        method: See :data:`kvw.methods.registry.METHODS`.
        loaded: The model.
        forget: What must go.
        retain: What must stay.
        settings: Of the method's class of settings.
        progress: Called while the method works.

    Returns:
        The edit with its origin in its metadata, and what the method has to say.

    Raises:
        UserError: There is no such method, or it cannot use what it was given.
    """
    found = get_method(method)
    if isinstance(retain, Statistics) and not found.statistics:
        raise UserError(
            f"Method {method} reads the retain examples themselves.",
            found="a statistics file",
            do="give --retain the file of the examples",
        )
    module, function = found.home
    made = getattr(import_module(module), function)(loaded, forget, retain, settings, progress)
    unlearned = made if isinstance(made, Unlearned) else Unlearned(made)
    _describe(unlearned.edit, loaded, forget, retain, settings)
    return unlearned


def kvw_edit(
    loaded: Loaded, forget: Sequence[Example], retain: Retain, settings: KvwSettings, progress: Progress
) -> Edit:
    """KVW; the statistics of the retain set, and for one-shot of the forget set too, are kept between settings."""
    matrices = select_layers(find_value_matrices(loaded.model), settings.layers)
    layers = (matrices[0].key.layer, matrices[-1].key.layer)

    reference = None
    if settings.retain_contrast:
        reference = retain if isinstance(retain, Statistics) else _statistics(loaded, retain, settings, progress)
    if settings.schedule == "one-shot":
        found = _statistics(loaded, forget, settings, progress).within(layers)
        steps = settings.steps(len(forget))
        return one_shot(found, reference, gamma=settings.gamma, steps=steps, min_tokens=settings.min_tokens)
    batches = ForgetBatches(loaded.prepare(forget), loaded.processor)
    return weaken(loaded.model, batches, reference, progress=progress, **asdict(settings))


def _statistics(loaded: Loaded, examples: Sequence[Example], settings: KvwSettings, progress: Progress) -> Statistics:
    """Of all layers, kept between settings."""
    return measure_examples(
        loaded.model,
        loaded.processor,
        loaded.prepare(examples),
        layers=loaded.all_layers,
        positions=settings.positions,
        fingerprint=loaded.statistics_fingerprint(examples, settings.positions),
        progress=progress,
    ).statistics


def conditional_kvw_edit(
    loaded: Loaded,
    forget: Sequence[Example],
    retain: Sequence[Example],
    settings: ConditionalKvwSettings,
    progress: Progress,
) -> Unlearned:
    """One-shot KVW under a condition; what the condition is worth is said in a warning."""
    layers = settings.chosen_layers(len(decoder_layers(loaded.model)))
    condition, report = find_condition(loaded.model, loaded.processor, forget, retain, settings, progress=progress)
    gates = kvw_edit(loaded, forget, retain, settings.weakening(layers), progress)
    metadata = EditMetadata(
        method="conditional-kvw",
        settings={**asdict(settings), "layers": layers, "steps": gates.metadata.settings["steps"]},
        left_alone=gates.metadata.left_alone,
    )
    edit = ConditionalGateEdit(GateEdit(gates.log_factors(), metadata), condition)
    return Unlearned(edit, warnings=tuple(report.warnings))


def subspace_edit(
    loaded: Loaded, forget: Sequence[Example], retain: Sequence[Example], settings: SubspaceSettings, progress: Progress
) -> Unlearned:
    """Subspace weakening; a fact is what the same answer says about the same subject."""
    forget_batches, forget_labels = _labelled(loaded, forget)
    shared, known = shared_moments(loaded, retain, settings, progress)
    own = [example for example in retain if not is_shared(example)] if known else list(retain)
    retain_batches, retain_labels = _labelled(loaded, own)
    retain_labels = replace(retain_labels, masses=_masses([own[place] for place in retain_batches.order], shared))
    certificates: list[Certificate] = []
    warnings: list[str] = []
    edit = subspace(
        loaded.model,
        forget_batches,
        retain_batches,
        settings,
        forget_labels=forget_labels,
        retain_labels=retain_labels,
        known=known,
        on_matrix=certificates.append,
        on_warning=warnings.append,
        progress=progress,
    )
    certificates = current().first(lambda: certificates)  # others are told nothing while the edit is made
    counted = "forget examples" if forget_labels.subjects is None else "forget subjects"
    return Unlearned(edit, tuple(certificates), (*warnings, *separation_warnings(certificates, counted)))


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


def relative_edit(
    loaded: Loaded, forget: Sequence[Example], retain: Sequence[Example], settings: RelativeSettings, progress: Progress
) -> Edit:
    """A relative of subspace weakening, from the same batches with the same labels."""
    forget_batches, forget_labels = _labelled(loaded, forget)
    retain_batches, retain_labels = _labelled(loaded, retain)
    return relative(
        loaded.model,
        forget_batches,
        retain_batches,
        settings,
        forget_labels=forget_labels,
        retain_labels=retain_labels,
        progress=progress,
    )


def steering_edit(
    loaded: Loaded, forget: Sequence[Example], retain: Sequence[Example], settings: SteeringSettings, progress: Progress
) -> Unlearned:
    """Steering from the forget set's answers towards refusals; what the gates are worth is said in warnings."""
    reports: list[GateReport] = []
    edit = steering(
        loaded.model, loaded.processor, forget, retain, settings, on_layer=reports.append, progress=progress
    )
    return Unlearned(edit, warnings=tuple(warning for report in reports for warning in report.warnings))


def labels_of(examples: Sequence[Example]) -> Labels:
    """Who and what examples are about, by the ``subject`` in their metadata.

    With subjects, a fact is what the same answer says about the same subject; without, every example is one.

    Raises:
        UserError: Some examples name their subject and others do not.
    """
    named = [example.subject_key for example in examples if example.subject_key is not None]
    if not named:
        return Labels()
    nameless = [example.identifier for example in examples if example.subject_key is None]
    if nameless:
        raise UserError(
            "Some examples name their subject and others do not.",
            found=f"{len(nameless)} of {len(examples)} without, the first {nameless[0]}",
            do="give every example a 'subject', or none",
        )
    return Labels([(subject, example.answer) for subject, example in zip(named, examples, strict=True)], named)


def _labelled(loaded: Loaded, examples: Sequence[Example]) -> tuple[LabelledBatches, Labels]:
    batches = LabelledBatches(loaded.prepare(examples), loaded.processor, loaded.model)
    return batches, labels_of([examples[place] for place in batches.order])


def _describe(edit: Edit, loaded: Loaded, forget: Sequence[Example], retain: Retain, settings: Any) -> None:
    """Put the origin of an edit into its metadata."""
    if isinstance(retain, Statistics):
        retain_digest, retain_count = retain.fingerprint["data"], 0  # statistics do not say of how many examples
    else:
        retain_digest, retain_count = examples_digest(retain) if retain else "", len(retain)
    # By the secret of the first process's machine: others may have another, and write none.
    digests = current().first(lambda: (salted(examples_digest(forget)), salted(retain_digest) if retain_digest else ""))
    edit.metadata = edit.metadata.model_copy(
        update={
            "settings": asdict(settings) | edit.metadata.settings,
            "base_model": str(loaded.checkpoint),
            "model_fingerprint": loaded.fingerprint,
            "model_type": loaded.model.config.model_type,
            "value_matrices": loaded.checkpoint.value_matrices,
            "forget_digest": digests[0],
            "forget_count": len(forget),
            "retain_digest": digests[1],
            "retain_count": retain_count,
        }
    )
