"""The work of every method, cut into stages."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from kvw.bench.cost.meter import Meter
from kvw.bench.cost.recipe import FORWARD, DataPart
from kvw.bench.cost.synthetic import MadeUpProcessor, made_up
from kvw.bench.methods import TRAINED, build_settings
from kvw.bench.trained_settings import TrainedSettings
from kvw.data import Prepared, answer_batch, prepare, to_model
from kvw.measuring.engine import Batch, evaluating
from kvw.measuring.examples import measure_examples
from kvw.measuring.statistics import Statistics
from kvw.methods.gradient import find_method
from kvw.methods.gradient.running import run
from kvw.methods.gradient.settings import DpoSettings
from kvw.methods.kvw import one_shot, weaken
from kvw.methods.settings import KvwSettings
from kvw.methods.subspace.labels import Labels
from kvw.methods.subspace.method import subspace
from kvw.methods.subspace.relatives.method import relative
from kvw.methods.subspace.relatives.settings import RelativeSettings
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.models.finding import find_value_matrices, select_layers
from kvw.training.answers import answers
from kvw.training.objective import Objective, Sets
from kvw.training.trainee import Trainee

RETAIN_PASS, FORGET_PASS = "retain pass", "forget pass"
"""Stages of KVW; what the first leaves behind serves later requests too."""


@dataclass(frozen=True)
class Work:
    """A model and examples to do things with.

    Args:
        model: With random weights.
        processor: Makes up batches.
        forget: The forget set.
        retain: The retain set.
        rows: Examples per forward.
    """

    model: PreTrainedModel
    processor: MadeUpProcessor
    forget: list[Prepared]
    retain: list[Prepared]
    rows: int

    @classmethod
    def of(cls, model: PreTrainedModel, data: DataPart) -> Work:
        """Make up the examples."""
        processor = MadeUpProcessor(model.config, data.image)
        forget, retain = (
            prepare(made_up(data, split, count), processor)
            for split, count in (("forget", data.forget), ("retain", data.retain))
        )
        return cls(model, processor, forget, retain, data.batch_size)

    def do(self, method: str, values: dict[str, Any], meter: Meter) -> None:
        """Do what a method does, once; trained weights stay in the model.

        Args:
            method: A method of the bench, or the plain forward pass.
            values: One of its combinations of settings.
            meter: Told of the stages.
        """
        if method == FORWARD:
            self.forward(meter)
        elif method in TRAINED:
            values = {"batch_size": self.rows, **values}
            self._train(build_settings(method, values), meter)
        elif method == "kvw":
            self._kvw(build_settings(method, values), meter)
        else:
            self._subspace(build_settings(method, values), meter)

    def forward(self, meter: Meter) -> None:
        """One plain forward pass over the forget and the retain set, with logits where an answer is predicted."""
        with meter.stage("forward"), evaluating(self.model):
            for batch in (*self._batches(self.forget), *self._batches(self.retain)):
                answers(self.model, to_model(dict(batch), self.model))

    def _batches(self, prepared: Sequence[Prepared]) -> _Batches:
        return _Batches(prepared, self.rows, self.processor)

    def _kvw(self, settings: KvwSettings, meter: Meter) -> None:
        reference = None
        with meter.stage(RETAIN_PASS):
            if settings.retain_contrast:
                reference = self._statistics(self.retain, settings)
        with meter.stage(FORGET_PASS):
            if settings.schedule == "one-shot":
                found = self._statistics(self.forget, settings)
                steps = settings.steps(len(self.forget))
                matrices = select_layers(find_value_matrices(self.model), settings.layers)
                found = found.within((matrices[0].key.layer, matrices[-1].key.layer))
                one_shot(found, reference, gamma=settings.gamma, steps=steps, min_tokens=settings.min_tokens)
            else:
                alone = _Batches(self.forget, 1, self.processor)
                weaken(self.model, alone, reference, **asdict(settings))

    def _statistics(self, prepared: Sequence[Prepared], settings: KvwSettings) -> Statistics:
        layers = (0, find_value_matrices(self.model)[-1].key.layer)
        budget = self.rows * max(item.length for item in prepared)
        return measure_examples(
            self.model, self.processor, prepared, layers=layers, positions=settings.positions, budget=budget
        ).statistics

    def _subspace(self, settings: SubspaceSettings | RelativeSettings, meter: Meter) -> None:
        forget_labels, retain_labels = (
            Labels(*([item.example.metadata[name] for item in prepared] for name in ("fact", "subject")))
            for prepared in (self.forget, self.retain)
        )
        forget, retain = self._batches(self.forget), self._batches(self.retain)
        with meter.stage("measuring and solving"):
            if isinstance(settings, RelativeSettings):
                relative(self.model, forget, retain, settings, forget_labels=forget_labels, retain_labels=retain_labels)
            else:
                subspace(self.model, forget, retain, settings, forget_labels=forget_labels, retain_labels=retain_labels)

    def _train(self, settings: TrainedSettings, meter: Meter) -> None:
        """As :func:`kvw.methods.gradient.unlearn` does it, with the time until the objective stands by itself."""
        found, own = find_method(settings.method), settings.method_settings
        if isinstance(own, DpoSettings) and not own.alternatives:
            own = replace(own, alternatives=tuple(item.example.answer[::-1] for item in self.forget))
        if found.direct is not None:
            with meter.stage("measuring and pruning"):
                found.direct(self.model, self.processor, self.forget, self.retain, own, None)
            return
        layers = found.layers(self.model, own) if found.layers is not None else None
        sets: Sets = {"forget": self.forget, "retain": self.retain}
        with ExitStack() as stage:
            stage.enter_context(meter.stage("references and masks"))

            def build(trainee: Trainee) -> Objective:
                objective = found.objective(trainee, own)
                stage.close()
                stage.enter_context(meter.stage("training"))
                return objective

            run(self.model, self.processor, sets, settings.method, build, settings.training, layers=layers)


class _Batches(Sequence[Batch]):
    """Batches of equal size, made when asked for."""

    def __init__(self, prepared: Sequence[Prepared], rows: int, processor: MadeUpProcessor) -> None:
        self._prepared, self._rows, self._processor = prepared, rows, processor

    def __len__(self) -> int:
        return -(-len(self._prepared) // self._rows)

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self):
            raise IndexError(index)
        return answer_batch(self._prepared[index * self._rows : (index + 1) * self._rows], self._processor)
