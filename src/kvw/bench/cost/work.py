"""The work of every method, cut into stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from kvw.bench.cost.meter import Meter
from kvw.bench.cost.recipe import FORWARD, DataPart
from kvw.bench.cost.synthetic import MadeUpProcessor, made_up
from kvw.data import Example, Prepared, answer_batch, prepare, to_model
from kvw.measuring.engine import evaluating
from kvw.measuring.examples import Measured, measure_examples
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.sources import Positions
from kvw.methods.registry import get_method
from kvw.models.finding import find_value_matrices
from kvw.progress import Progress
from kvw.training.answers import answers


class Work:
    """A model with random weights and examples to do things with; what methods get for a loaded model.

    Args:
        model: With random weights.
        data: What to make up.

    Attributes:
        forget: The forget set.
        retain: The retain set.
        rows: Examples per forward.
    """

    def __init__(self, model: PreTrainedModel, data: DataPart) -> None:
        self.model, self.processor, self.rows = model, MadeUpProcessor(model.config, data.image), data.batch_size
        self.forget, self.retain = made_up(data, "forget", data.forget), made_up(data, "retain", data.retain)
        everything = [*self.forget, *self.retain]
        # Rendering is no method's work.
        self._prepared = dict(zip(map(id, everything), prepare(everything, self.processor), strict=True))
        self._budget = self.rows * max(item.length for item in self._prepared.values())

    @property
    def all_layers(self) -> tuple[int, int]:
        """First and last decoder layer."""
        return 0, find_value_matrices(self.model)[-1].key.layer

    def prepare(self, examples: Sequence[Example]) -> list[Prepared]:
        """The examples as they are: they have been rendered already."""
        return [self._prepared[id(example)] for example in examples]

    def batches(self, examples: Sequence[Example]) -> LabelledBatches:
        """Batches of ``rows`` examples; what questions about one image share is run for each, as in the plain pass."""
        return LabelledBatches(self.prepare(examples), self.processor, self.model, self._budget).unshared()

    def measure(
        self, examples: Sequence[Example], positions: Positions = "answer", progress: Progress | None = None
    ) -> Measured:
        """Statistics of all layers, measured anew."""
        return measure_examples(
            self.model,
            self.processor,
            self.prepare(examples),
            layers=self.all_layers,
            positions=positions,
            budget=self._budget,
            progress=progress,
        )

    def conditions(self, examples: Sequence[Example]) -> None:
        """Nothing is kept between runs."""

    def do(self, method: str, values: dict[str, Any], meter: Meter) -> None:
        """Do what a method does, once; trained weights stay in the model.

        Args:
            method: A method of the bench, or the plain forward pass.
            values: One of its combinations of settings.
            meter: Told of the stages.
        """
        if method == FORWARD:
            self.forward(meter)
        else:
            chosen = get_method(method)
            settings = chosen.cost_settings(values, self.rows)
            chosen.measure_cost(self, self.forget, self.retain, settings, meter.stage)

    def forward(self, meter: Meter) -> None:
        """One plain forward pass over the forget and the retain set, with logits where an answer is predicted."""
        with meter.stage("forward"), evaluating(self.model):
            for examples in (self.forget, self.retain):
                prepared = self.prepare(examples)
                for start in range(0, len(prepared), self.rows):
                    batch = answer_batch(prepared[start : start + self.rows], self.processor)
                    answers(self.model, to_model(dict(batch), self.model))
