"""A model that is in memory, and its processor: all that is needed to measure what it makes of examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kvw.data import Example, Prepared, TextProcessor, prepare
from kvw.data.context import context_length
from kvw.data.rows import examples_of
from kvw.data.windows import in_windows
from kvw.measuring.examples import Measured, measure_examples
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.sources import Positions
from kvw.models.finding import find_value_matrices
from kvw.models.repairs import repair_processor
from kvw.progress import Progress


@dataclass(frozen=True)
class InMemory:
    """What methods get for a model that a caller has loaded.

    Args:
        model: On its device.
        processor: Its processor.
    """

    model: PreTrainedModel
    processor: Any

    @property
    def all_layers(self) -> tuple[int, int]:
        """First and last decoder layer."""
        return 0, find_value_matrices(self.model)[-1].key.layer

    @property
    def origin(self) -> dict[str, str]:
        """What an edit of this model says of where it comes from."""
        return {"model_type": self.model.config.model_type}

    def in_windows(self, examples: Sequence[Example]) -> list[Example]:
        """Examples with documents in parts that the model can read, see :func:`kvw.data.windows.in_windows`."""
        return in_windows(examples, self.processor, context_length(self.model.config))

    def prepare(self, examples: Sequence[Example], new_tokens: int = 0) -> list[Prepared]:
        """Render and check examples.

        Args:
            examples: What to prepare.
            new_tokens: The longest answer that will be generated, in tokens.

        Raises:
            UserError: See :func:`kvw.data.prepare`.
        """
        return prepare(examples, self.processor, self.model.config, new_tokens=new_tokens)

    def batches(self, examples: Sequence[Example]) -> LabelledBatches:
        """Batches of examples, the longest first, made when asked for."""
        return LabelledBatches(self.prepare(examples), self.processor, self.model)

    def measure(
        self, examples: Sequence[Example], positions: Positions = "answer", progress: Progress | None = None
    ) -> Measured:
        """Statistics of all layers; kept between runs if there is a fingerprint of what they depend on."""
        return measure_examples(
            self.model,
            self.processor,
            self.prepare(examples),
            layers=self.all_layers,
            positions=positions,
            fingerprint=self.statistics_fingerprint(examples, positions),
            budget=self.budget,
            progress=progress,
        )

    @property
    def budget(self) -> int | None:
        """Tokens of a batch of measuring; None for what memory allows."""
        return None

    def statistics_fingerprint(self, examples: Sequence[Example], positions: Positions) -> dict[str, str] | None:
        """What statistics over all layers of this model on these examples depend on; None, as for
        :meth:`conditions`."""
        return None

    def conditions(self, examples: Sequence[Example]) -> Mapping[str, str] | None:
        """Nothing is kept between runs: the weights of a model in memory may be any."""
        return None


def in_memory(model: PreTrainedModel, processor: Any) -> InMemory:
    """A model and the processor that a caller has for it.

    Args:
        model: A loaded model.
        processor: Its processor, or the tokenizer of a text-only model. What an image processor lacks and the
            model's configuration has is put into it.

    Raises:
        UserError: The configuration does not have it either.
    """
    if isinstance(processor, PreTrainedTokenizerBase):
        processor = TextProcessor(processor)
    repair_processor(processor, model.config)
    return InMemory(model, processor)


def batches(model: PreTrainedModel, processor: Any, examples: Iterable[Example | Mapping[str, Any]]) -> LabelledBatches:
    """Make batches for :func:`kvw.subspace`, :func:`kvw.weaken`, :func:`kvw.measure` and the other methods.

    Each example is asked with the chat template of the model, and labels are at the tokens of its answer. A batch holds
    a fixed budget of tokens. What several questions share, such as an image, runs once. Batches are made when they are
    asked for, so images are not all in memory.

    Args:
        model: The model that they are for; a Hugging Face model in memory.
        processor: Its processor, or the tokenizer of a text-only model.
        examples: From :func:`kvw.read_examples`, or mappings with ``question``, ``answer`` and, if there are any,
            ``image`` or ``images``. With a ``subject`` methods know which examples are about one and the same.

    Returns:
        A sequence of batches that can be gone through again. Its ``order`` says which example each row is.

    Raises:
        UserError: An example cannot be rendered or does not fit into the model; the message names it.
    """
    return in_memory(model, processor).batches(examples_of(examples))
