"""Whether a model writes ordinary language: the perplexity of shipped sentences, and answers to shipped requests."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from kvw.data import Example, Prepared, prepare, read_examples
from kvw.data.rendering import Processor
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.journal import Journal
from kvw.evaluation.probability import token_scores
from kvw.progress import Progress

EVERYDAY = Path(__file__).parent / "everyday.jsonl"
"""Twenty requests for a sentence, each with an ordinary English sentence; written for this check."""
PROMPTS = 12
"""Requests that are answered freely."""
LONGEST_ANSWER = 40
"""Longest of these answers, in tokens."""
TIMES = 3
SHORTEST_LOOP = 24
"""Repetitions of one text at the end of an answer, and their length in characters, from which it is a loop."""


@dataclass(frozen=True)
class Speech:
    """What a model makes of the shipped sentences and requests.

    Args:
        perplexity: Perplexity of the sentences, teacher-forced as answers to their requests: exp of the mean negative
            log probability of all their tokens. At least 1, and finite.
        answers: To the first requests, greedy, each as text.
    """

    perplexity: float
    answers: tuple[str, ...]


def everyday_examples() -> list[Example]:
    """The shipped requests with their sentences; no pictures."""
    return read_examples(EVERYDAY)


def listen(
    model: PreTrainedModel, processor: Processor, progress: Progress | None = None, journal: Journal | None = None
) -> Speech:
    """Score the shipped sentences and let the model answer the shipped requests, both without images.

    Several processes (:func:`kvw.processes.together`) share the batches among them.

    Args:
        model: A model that generates text, of images and text or of text only; its mode and settings are restored.
        processor: Its processor.
        progress: Called with (done, total).
        journal: Keeps scores and answers as they come, and gives those that an earlier run has left.

    Raises:
        UserError: The processor cannot ask without a picture, memory runs out on a single sentence, or the model's
            output is not a number.
    """
    prepared = prepare(everyday_examples(), processor)
    sentences = _perplexity(model, processor, prepared, progress)
    answers = generate_answers(
        model, processor, prepared[:PROMPTS], max_new_tokens=LONGEST_ANSWER, journal=journal, progress=progress
    )
    return Speech(sentences, tuple(answers))


def perplexity(model: PreTrainedModel, processor: Processor, progress: Progress | None = None) -> float:
    """Perplexity of the shipped sentences, see :class:`Speech`; arguments and errors as of :func:`listen`."""
    return _perplexity(model, processor, prepare(everyday_examples(), processor), progress)


def _perplexity(
    model: PreTrainedModel, processor: Processor, prepared: list[Prepared], progress: Progress | None
) -> float:
    scores = token_scores(model, processor, prepared, progress=progress)
    tokens = [value for each in scores for value in each.log_probabilities]
    loss = min(-math.fsum(tokens) / len(tokens), 700.0)  # exp of more is infinite in float64
    return math.exp(loss)


def is_broken(answer: str) -> bool:
    """Whether an answer is empty, or ends in a loop: its end says the same thing three times or more.

    Looked at are characters, whatever the script, and at least the last 24 of them. Every number is taken for the same
    one, so that a list that only counts on is a loop, and white space for one space.
    """
    text = re.sub(r"\d+", "0", " ".join(answer.split()))
    # With the space that would come next, a loop of words has its whole period three times.
    return not text or _loops(text) or _loops(text + " ")


def _loops(text: str) -> bool:
    for period in range(1, len(text) // TIMES + 1):
        wanted = max(TIMES * period, SHORTEST_LOOP)
        if wanted <= len(text) and text[-wanted + period :] == text[-wanted:-period]:
            return True
    return False


def broken_share(answers: Sequence[str]) -> float:
    """Share of answers that :func:`is_broken`, between 0 and 1; 0 of none."""
    return sum(map(is_broken, answers)) / max(len(answers), 1)
