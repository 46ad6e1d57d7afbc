"""What an edit leaves of the forget set, and of what must stay, by teacher forcing: no answer is generated."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass
from itertools import count
from statistics import stdev

from transformers import PreTrainedModel

from kvw.data import Prepared
from kvw.data.rendering import Processor
from kvw.data.shared import is_shared
from kvw.data.telling import beginnings, telling_tokens
from kvw.edits.edit import Edit
from kvw.evaluation.journal import Journal
from kvw.evaluation.probability import TokenScores, token_scores
from kvw.evaluation.running import content_keys
from kvw.processes import current
from kvw.progress import Progress
from kvw.selection.known_scores import KnownScores
from kvw.selection.splits import FORGETTING


@dataclass(frozen=True)
class Score:
    """What a model makes of the answers of one split.

    Args:
        answered: For each question whether all telling tokens of its answer are the model's first choice.
        probabilities: For each question the geometric mean of the probabilities of these tokens, between 0 and 1.
        losses: For each question the sum of the negative log probabilities of all its answer tokens, in nats.
        tokens: For each question how many answer tokens it has.
    """

    answered: tuple[bool, ...]
    probabilities: tuple[float, ...]
    losses: tuple[float, ...]
    tokens: tuple[int, ...]

    @classmethod
    def of(cls, scores: Sequence[TokenScores], telling: Sequence[Sequence[int]]) -> Score:
        """Sum up token scores over the telling tokens of each answer."""
        pairs = list(zip(scores, telling, strict=True))
        chosen = [[one.log_probabilities[place] for place in places] for one, places in pairs]
        return cls(
            answered=tuple(all(one.is_argmax[place] for place in places) for one, places in pairs),
            probabilities=tuple(math.exp(math.fsum(values) / len(values)) for values in chosen),
            losses=tuple(-math.fsum(one.log_probabilities) for one in scores),
            tokens=tuple(len(one.log_probabilities) for one in scores),
        )

    @classmethod
    def joined(cls, scores: Sequence[Score]) -> Score:
        """The questions of several splits as one."""
        return cls(
            tuple(value for score in scores for value in score.answered),
            tuple(value for score in scores for value in score.probabilities),
            tuple(value for score in scores for value in score.losses),
            tuple(value for score in scores for value in score.tokens),
        )

    def part(self, places: Sequence[int]) -> Score:
        """Some of the questions."""
        return Score(
            tuple(self.answered[place] for place in places),
            tuple(self.probabilities[place] for place in places),
            tuple(self.losses[place] for place in places),
            tuple(self.tokens[place] for place in places),
        )

    @property
    def probability(self) -> float:
        """Mean over the questions."""
        return math.fsum(self.probabilities) / len(self.probabilities)

    @property
    def of_whole_answers(self) -> list[float]:
        """For each question the geometric mean of the probabilities of all its answer tokens."""
        return [math.exp(-loss / count) for loss, count in zip(self.losses, self.tokens, strict=True)]

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log probability of all answer tokens."""
        return math.exp(min(math.fsum(self.losses) / sum(self.tokens), 700.0))  # exp of more is infinite in float64


@dataclass(frozen=True)
class Share:
    """How much of something is left, and how sure that is.

    Args:
        value: After over before.
        error: Standard error over the questions, paired.
    """

    value: float
    error: float


def share_of_answers(before: Score, after: Score) -> Share:
    """What is left of the mean probability of the answers: of their telling tokens, or of all their tokens if that is
    less. An edit can spare what answers say and take the words around it."""
    telling = _share(before.probabilities, after.probabilities)
    whole = _share(before.of_whole_answers, after.of_whole_answers)
    return min(telling, whole, key=lambda share: share.value)


def _share(before: Sequence[float], after: Sequence[float]) -> Share:
    base = math.fsum(before) / len(before)
    if base == 0:
        return Share(1.0, 0.0)
    value = math.fsum(after) / len(after) / base
    return Share(value, _error_of_mean([now - value * was for was, now in zip(before, after, strict=True)]) / base)


def share_of_text(before: Score, after: Score) -> Share:
    """The original perplexity over the new one."""
    total = sum(before.tokens)
    mean = (math.fsum(after.losses) - math.fsum(before.losses)) / total
    worse = [
        now - was - mean * count for was, now, count in zip(before.losses, after.losses, before.tokens, strict=True)
    ]
    value = math.exp(-min(max(mean, -700.0), 700.0))
    return Share(value, value * _error_of_mean(worse) * len(worse) / total)


def _error_of_mean(values: Sequence[float]) -> float:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


class Scorer:
    """Scores edits on the same questions, attached to one model.

    Args:
        model: The original model, with no edit.
        processor: Its processor.
        splits: The questions, prepared, by the name of their split; none is empty.
        pool: Further prepared examples of the run: they only tell which tokens are common.
        progress: Called after every edit with (edits scored, 0); of several processes in the first only.
        telling: Places of the tokens of each answer that say something, for splits where they are known. Of forget
            questions only those count with which a word begins.
        journal: Keeps what the original model makes of splits of shared examples
            (:func:`kvw.data.shared.is_shared`), which other requests judge by, too.
        known: What other scorers of the same model have asked already. What this one asks is added.

    Attributes:
        original: Scores without an edit, by split.
        known: What was asked so far.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Processor,
        splits: Mapping[str, Sequence[Prepared]],
        pool: Sequence[Prepared] = (),
        progress: Progress | None = None,
        telling: Mapping[str, Sequence[tuple[int, ...]]] | None = None,
        journal: Journal | None = None,
        known: KnownScores | None = None,
    ) -> None:
        self.known = known or KnownScores()
        self._model, self._processor = model, processor
        self._splits = {name: list(items) for name, items in splits.items()}
        self._keys = {name: content_keys(items, [item.full for item in items]) for name, items in self._splits.items()}
        everything = [item for items in self._splits.values() for item in items]
        telling_of = telling_tokens([*everything, *pool], processor)
        self._telling: dict[str, Sequence[tuple[int, ...]]] = {}
        for name, items in self._splits.items():
            self._telling[name], telling_of = telling_of[: len(items)], telling_of[len(items) :]
        self._telling |= telling or {}
        for name in {*FORGETTING} & {*splits}:
            pairs = zip(self._splits[name], self._telling[name], strict=True)
            self._telling[name] = [beginnings(item, places, processor) for item, places in pairs]
        self._progress, self._numbers = progress, count(1)
        shared = [name for name, items in self._splits.items() if all(is_shared(item.example) for item in items)]
        own = [name for name in self._splits if name not in shared]
        scores = self._scores(shared, journal=journal) | self._scores(own)
        self.original = {name: scores[name] for name in self._splits}
        self._tell()

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self._splits)

    def about(self, subject: Hashable) -> Scorer:
        """The same with the forget questions about one subject only; splits without any are missing.

        Args:
            subject: As :attr:`kvw.data.Example.subject_key` has it.
        """
        part = copy(self)
        places = {
            name: [
                place
                for place, item in enumerate(items)
                if name not in FORGETTING or item.example.subject_key == subject
            ]
            for name, items in self._splits.items()
        }
        places = {name: some for name, some in places.items() if some}
        part._splits = {name: [self._splits[name][place] for place in some] for name, some in places.items()}
        part._keys = {name: [self._keys[name][place] for place in some] for name, some in places.items()}
        part._telling = {name: [self._telling[name][place] for place in some] for name, some in places.items()}
        part.original = {name: self.original[name].part(some) for name, some in places.items()}
        return part

    def scores(
        self, edit: Edit, names: Sequence[str], places: Mapping[str, Sequence[int]] | None = None
    ) -> dict[str, Score]:
        """Score some splits with an edit attached; the model is left as it was.

        Args:
            edit: The edit.
            names: Names of the splits.
            places: The questions to ask of each split, from 0; None for all.
        """
        scores = self._scores(names, places, edit)
        self._tell()
        return scores

    def _scores(
        self,
        names: Sequence[str],
        places: Mapping[str, Sequence[int]] | None = None,
        edit: Edit | None = None,
        journal: Journal | None = None,
    ) -> dict[str, Score]:
        asked = {
            name: range(len(self._splits[name])) if places is None else places[name]
            for name in names
            if name in self._splits
        }
        items = [self._splits[name][place] for name, some in asked.items() for place in some]
        keys = [self._keys[name][place] for name, some in asked.items() for place in some]

        def ask(new: Sequence[Prepared]) -> list[TokenScores]:
            with nullcontext() if edit is None else edit.attach(self._model):
                return token_scores(self._model, self._processor, new, journal=journal)

        found = self.known.complete(edit, items, keys, ask)
        scores = {}
        for name, some in asked.items():
            own, found = found[: len(some)], found[len(some) :]
            scores[name] = Score.of(own, [self._telling[name][place] for place in some])
        return scores

    def _tell(self) -> None:
        done = next(self._numbers)
        if self._progress is not None and current().is_first:
            self._progress(done, 0)
