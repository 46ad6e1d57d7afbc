"""The work of every method, cut into stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from kvw.bench.cost.meter import Meter
from kvw.bench.cost.recipe import FORWARD, DataPart
from kvw.bench.cost.synthetic import MadeUpProcessor, made_up
from kvw.data import Example, Prepared, answer_batch, prepare, to_model
from kvw.measuring.engine import evaluating
from kvw.measuring.in_memory import InMemory
from kvw.measuring.labelled import LabelledBatches
from kvw.methods.registry import get_method
from kvw.training.answers import answers


@dataclass(frozen=True)
class Work(InMemory):
    """A model with random weights and examples to do things with; what methods get for a loaded model.

    Args:
        model: With random weights.
        processor: Made up, too.
        forget: The forget set.
        retain: The retain set.
        rows: Examples per forward.
        rendered: The examples rendered, by :func:`id`: that is no method's work.
    """

    forget: list[Example]
    retain: list[Example]
    rows: int
    rendered: Mapping[int, Prepared]

    @classmethod
    def made_up(cls, model: PreTrainedModel, data: DataPart) -> Work:
        """Make up a processor and examples."""
        processor = MadeUpProcessor(model.config, data.image)
        forget, retain = (
            made_up(data, split, count, pictures=processor.sees)
            for split, count in (("forget", data.forget), ("retain", data.retain))
        )
        everything = [*forget, *retain]
        rendered = dict(zip(map(id, everything), prepare(everything, processor), strict=True))
        return cls(model, processor, forget, retain, data.batch_size, rendered)

    @property
    def budget(self) -> int:
        """As many tokens as ``rows`` of the longest example have."""
        return self.rows * max(item.length for item in self.rendered.values())

    def prepare(self, examples: Sequence[Example], new_tokens: int = 0) -> list[Prepared]:
        """The examples as they are: they have been rendered already."""
        return [self.rendered[id(example)] for example in examples]

    def batches(self, examples: Sequence[Example]) -> LabelledBatches:
        """Batches of ``rows`` examples; what questions about one image share is run for each, as in the plain pass."""
        return LabelledBatches(self.prepare(examples), self.processor, self.model, self.budget).unshared()

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
