"""How probable a model finds the reference answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kvw.data import Prepared, answer_batch, to_model
from kvw.data.batches import IGNORED
from kvw.data.rendering import Processor
from kvw.edits.prompts import ends_before, prompt_ends
from kvw.errors import UserError
from kvw.evaluation.journal import SCORES, Journal
from kvw.evaluation.running import budget_for, content_keys
from kvw.measuring.batch_sizing import out_of_memory
from kvw.measuring.beginnings import Beginning, find_alike_examples
from kvw.measuring.engine import evaluating
from kvw.measuring.prefixes import shares_prefixes
from kvw.models.answer_logits import AnswerLogits, answer_logits
from kvw.processes import current
from kvw.progress import Progress

POSITIONS_AT_ONCE = 128
"""Positions whose distributions are looked at together: with 150,000 tokens in the vocabulary, five float32
tables of 77 MB."""


@dataclass(frozen=True)
class TokenScores:
    """What one teacher-forced pass says about the tokens of a reference answer, in order.

    ``p_t`` is the model's distribution at the position that predicts answer token ``y_t``, given the prompt, the
    images and the true tokens before it. The softmax is in float32, whatever the model's data type.

    Args:
        log_probabilities: log p_t(y_t) of each answer token, in nats.
        is_argmax: Whether each answer token is the one with the largest logit, which greedy decoding would say.
        means: Mean of log p_t(z) over z drawn from p_t, at each position: minus its entropy, in nats.
        deviations: Standard deviation of log p_t(z) over z drawn from p_t, at each position, in nats.
    """

    log_probabilities: tuple[float, ...]
    is_argmax: tuple[bool, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Mean negative log likelihood per answer token, in nats; not below 0."""
        return -math.fsum(self.log_probabilities) / len(self.log_probabilities)


@dataclass(frozen=True)
class AnswerProbability:
    """How probable the reference answer is, teacher-forced.

    Args:
        probability: Length-normalised: exp of the mean log probability of the answer's tokens, P(a|q)^(1/|a|)
            as in TOFU; between 0 and 1.
        log_probability: Sum of the log probabilities of the answer's tokens, in nats.
        tokens: How many tokens the answer has.
    """

    probability: float
    log_probability: float
    tokens: int


def answer_probabilities(
    model: PreTrainedModel,
    processor: Processor,
    prepared: Sequence[Prepared],
    *,
    budget: int | None = None,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> list[AnswerProbability]:
    """Compute the probability of each reference answer given its prompt and images.

    The sums of :func:`token_scores`, with the same arguments and errors.

    Returns:
        One result per example, in order.
    """
    return [
        AnswerProbability(
            probability=math.exp(-scores.loss),
            log_probability=math.fsum(scores.log_probabilities),
            tokens=len(scores.log_probabilities),
        )
        for scores in token_scores(model, processor, prepared, budget=budget, journal=journal, progress=progress)
    ]


def token_scores(
    model: PreTrainedModel,
    processor: Processor,
    prepared: Sequence[Prepared],
    *,
    budget: int | None = None,
    journal: Journal | None = None,
    progress: Progress | None = None,
) -> list[TokenScores]:
    """Score every token of each reference answer given its prompt and images, in one forward pass.

    Answer probability, truth ratio, extraction strength, Min-K and Min-K++ all follow from it. Logits are made
    at answer-predicting positions only where the model supports that. The end token is not part of the answer.
    What many texts begin with, such as a system prompt, runs once where that changes no number but for rounding.
    Several processes (:func:`kvw.processes.together`) share the batches among them.

    Args:
        model: A model that takes images and text; its mode is restored.
        processor: The processor the examples were prepared with.
        prepared: Examples from ``prepare``.
        budget: Padded tokens per batch, without those that run once; None for the default of the model's device.
        journal: Keeps scores as they come; batches that it has are not run again.
        progress: Called with (examples done, examples in all).

    Returns:
        One result per example, in order.

    Raises:
        UserError: An image cannot be decoded, memory runs out on a single example, or the model's output is
            not a number.
    """
    keys = content_keys(prepared, [item.full for item in prepared])
    rows = sorted(range(len(prepared)), key=lambda row: keys[row])
    items = [prepared[row] for row in rows]
    kept = (journal or Journal(None)).kept(SCORES, TokenScores)

    results: dict[int, TokenScores] = {}
    with evaluating(model):
        for group, common, run in _groups(model, processor, items):
            own = [items[place] for place in group]
            for indices, found in kept.run_grouped(
                own,
                [keys[rows[place]] for place in group],
                [item.length - common for item in own],
                run,
                budget=budget_for(model, budget),
            ):
                for index, scores in zip(indices, found, strict=True):
                    _check(scores, own[index])
                    results[rows[group[index]]] = scores
                if progress is not None:
                    progress(len(results), len(prepared))
    return current().broadcast(lambda: [results[row] for row in range(len(prepared))])


def _groups(
    model: PreTrainedModel, processor: Processor, items: Sequence[Prepared]
) -> Iterator[tuple[Sequence[int], int, Callable[[list[Prepared]], list[TokenScores]]]]:
    """Which items may share batches, how many tokens of each are run once for all of them, and what scores a batch."""
    alone = set(range(len(items)))
    if shares_prefixes(model):
        for alike in find_alike_examples(items):
            alone.difference_update(alike.rows)
            beginning = Beginning(model, items[alike.rows[0]].token_ids[: alike.common])
            yield alike.rows, alike.common, partial(_score_endings, beginning, processor)
    yield sorted(alone), 0, lambda batch: score_batch(model, answer_batch(batch, processor))


def _score_endings(beginning: Beginning, processor: Processor, batch: list[Prepared]) -> list[TokenScores]:
    return _scores(beginning.answer_logits(answer_batch(batch, processor)), len(batch))


@torch.no_grad()
def score_batch(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> list[TokenScores]:
    """Score the labelled tokens of one batch of tensors, padded on either side.

    Args:
        model: A model that takes the batch; its mode is left as it is.
        batch: Its input, with ``labels`` int64 of shape (batch, sequence): the token id at answer tokens, -100
            everywhere else, not shifted. The first column is not predicted by anything and does not count.

    Returns:
        One result per row, with one entry per label of the row.

    Raises:
        UserError: The batch lacks labels, or a row has none.
    """
    if "labels" not in batch or not (batch["labels"][:, 1:] != IGNORED).any(dim=1).all():
        raise UserError(
            "A batch to score needs labels in every row.",
            found="a row without answer tokens" if "labels" in batch else f"only {', '.join(batch)}",
            do="give labels of shape (batch, tokens): the token id at answer tokens, -100 everywhere else",
        )
    inputs = to_model(dict(batch), model)
    with prompt_ends(model, ends_before(inputs["labels"])):
        logits = answer_logits(model, inputs)
    return _scores(logits, len(batch["labels"]))


def _scores(found: AnswerLogits, count: int) -> list[TokenScores]:
    """The scores of each of ``count`` rows."""
    parts = (torch.split(tensor, POSITIONS_AT_ONCE) for tensor in (found.logits, found.targets))
    pieces = zip(*parts, strict=True)
    table = torch.cat([_position_scores(logits, targets) for logits, targets in pieces]).double().cpu()
    lengths = torch.bincount(found.rows, minlength=count)
    return [_row_scores(rows) for rows in torch.split(table, lengths.tolist())]


def try_model(model: PreTrainedModel, processor: Processor, item: Prepared) -> None:
    """Let a model score one example, to see whether it takes what its processor makes.

    Raises:
        UserError: It does not, for example because it expects another number of image tokens.
    """
    try:
        with evaluating(model):
            score_batch(model, answer_batch([item], processor))
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        if out_of_memory(error):
            return  # told where the pass itself finds the largest batch that fits
        said = (str(error).strip() or "no message").splitlines()[0][:300]
        raise UserError(
            f"{item.example.identifier}: the model and its processor do not fit together.",
            found=f"{type(error).__name__}: {said}",
            do="use the processor files and the tokenizer that belong to these weights",
        ) from error


def _position_scores(logits: Tensor, targets: Tensor) -> Tensor:
    """float32 of shape (positions, 4): the fields of TokenScores; logits of shape (positions, vocabulary)."""
    table = torch.log_softmax(logits.float(), dim=-1)
    probabilities = table.exp()
    # A token that a model rules out by an infinite logit adds 0 and not 0 * inf.
    possible = torch.where(probabilities > 0, table, 0.0)
    means = (probabilities * possible).sum(dim=-1)
    squares = torch.where(probabilities > 0, possible - means[:, None], 0.0).square_()
    return torch.stack(
        [
            table.gather(1, targets[:, None])[:, 0],
            (logits.argmax(dim=-1) == targets).float(),
            means,
            (probabilities * squares).sum(dim=-1).sqrt(),
        ],
        dim=1,
    )


def _row_scores(rows: Tensor) -> TokenScores:
    log_probabilities, is_argmax, means, deviations = rows.T.tolist()
    return TokenScores(
        log_probabilities=tuple(log_probabilities),
        is_argmax=tuple(value == 1.0 for value in is_argmax),
        means=tuple(means),
        deviations=tuple(deviations),
    )


def _check(scores: TokenScores, item: Prepared) -> None:
    if math.isnan(math.fsum((*scores.log_probabilities, *scores.means, *scores.deviations))):
        raise UserError(
            f"{item.example.identifier}: the model's output is not a number.",
            found="NaN among the logits",
            do="load the model in bfloat16 or float32, and check the edit",
        )
