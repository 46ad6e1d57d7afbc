"""What the examples of an evaluation gave, one by one and on average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from pydantic import Field

from kvw.data import Example
from kvw.errors import UserError
from kvw.evaluation.metrics import exact_match, normalised_substring, rouge_l
from kvw.strict import Strict

METRICS = {"exact": "exact match", "substring": "contains", "rouge_l_f": "ROUGE-L", "probability": "P(answer)"}
"""The means of a :class:`Summary` that tables and cards show, and what they call them."""
MORE_THOUGHT = (
    "allow for the thought with --thought-tokens N, 2000 say, or start the server so that the model does not think"
)


@dataclass(frozen=True)
class Reply:
    """What came back for one example.

    Args:
        text: The answer; empty if the example failed.
        probability: Probability of the reference answer, see :class:`kvw.evaluation.probability.AnswerProbability`;
            None if it was not measured.
        error: Why there is no answer; None if there is one.
        cut_off: Whether there is no answer because the model was still thinking when its tokens ended.
        at_limit: Whether the answer, being there, is as long as was allowed; not part of what is compared.
    """

    text: str = ""
    probability: float | None = None
    error: str | None = None
    cut_off: bool = False
    at_limit: bool = field(default=False, compare=False)


class Record(Strict):
    """What one example gave.

    An example that failed (its images cannot be decoded, a server gave no answer) has an ``error``; it counts as wrong
    everywhere (no match, scores 0), and as failed in the summary. One whose answer was ``cut_off`` inside a thought has
    an ``error``, too, and is neither right nor wrong: no mean includes it. ``probability`` is None where it cannot be
    measured: servers do not tell it.
    """

    identifier: str
    split: str
    question: str
    reference: str
    prediction: str
    exact: bool
    substring: bool
    rouge_l_f: float
    rouge_l_recall: float
    probability: float | None
    error: str | None = None
    cut_off: bool = Field(default=False, exclude=True)
    """Not written: ``error`` says it."""


class Summary(Strict):
    """Means over all examples of a split but those cut off, the failed ones included; None for what was not measured.

    Where ``failed`` is not 0, a low score may be damaged data and no forgetting.
    """

    count: int
    failed: int
    cut_off: int = 0
    exact: float
    substring: float
    rouge_l_f: float
    rouge_l_recall: float
    probability: float | None


class Evaluation(Strict):
    """All records, split by split in the given order, and the summary of each split."""

    records: tuple[Record, ...]
    summaries: dict[str, Summary]


def collect(splits: Mapping[str, Sequence[Example]], replies: Sequence[Reply]) -> Evaluation:
    """Compare replies with the reference answers.

    Args:
        splits: Examples by the name of their split.
        replies: One for each example, split by split.

    Raises:
        UserError: All answers of a split were cut off: nothing is known about it, which no score can say.
    """
    asked = [(name, example) for name, examples in splits.items() for example in examples]
    records = [_record(name, example, reply) for (name, example), reply in zip(asked, replies, strict=True)]
    summaries = {name: _summary(name, [record for record in records if record.split == name]) for name in splits}
    return Evaluation(records=tuple(records), summaries=summaries)


def _record(split: str, example: Example, reply: Reply) -> Record:
    answered = reply.error is None
    rouge = rouge_l(reply.text, example.answer) if answered else None
    return Record(
        identifier=example.identifier,
        split=split,
        question=example.question,
        reference=example.answer,
        prediction=reply.text,
        exact=answered and exact_match(reply.text, example.answer),
        substring=answered and normalised_substring(reply.text, example.answer),
        rouge_l_f=rouge.f if rouge else 0.0,
        rouge_l_recall=rouge.recall if rouge else 0.0,
        probability=reply.probability,
        error=reply.error,
        cut_off=reply.cut_off,
    )


def _summary(split: str, asked: Sequence[Record]) -> Summary:
    records = [record for record in asked if not record.cut_off]
    if not records:
        raise UserError(
            f"No answer of {split} can be scored.",
            found=f"{len(asked)} of {len(asked)} answers cut off inside the model's thought",
            do=MORE_THOUGHT,
        )
    probabilities = [record.probability for record in records if record.probability is not None]
    return Summary(
        count=len(asked),
        failed=sum(record.error is not None for record in records),
        cut_off=len(asked) - len(records),
        exact=fmean(record.exact for record in records),
        substring=fmean(record.substring for record in records),
        rouge_l_f=fmean(record.rouge_l_f for record in records),
        rouge_l_recall=fmean(record.rouge_l_recall for record in records),
        # A mean over some of them would compare with nothing.
        probability=fmean(probabilities) if len(probabilities) == len(records) else None,
    )
