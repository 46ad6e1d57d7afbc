"""One attack on one loaded model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from kvw.data import Example
from kvw.data.telling import telling_tokens
from kvw.evaluation.attacks.lens import LENSES, lens_ranks
from kvw.evaluation.attacks.sampling import drawn_answers
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.journal import Journal
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.metrics.choice import likeliest
from kvw.evaluation.metrics.membership import membership_auc, min_k_plus_plus
from kvw.evaluation.probability import TokenScores, token_scores
from kvw.progress import Progress
from kvw.records.audit import Found, Try
from kvw.runs.audit.choices import options_of
from kvw.runs.audit.invented import about_nobody
from kvw.runs.audit.prompts import Asked, prompts_of
from kvw.runs.audit.questions import Questions
from kvw.runs.audit.request import AuditRequest
from kvw.selection.own_words import tokens_at


@dataclass(frozen=True)
class Asking:
    """A model that is asked.

    Args:
        loaded: The model with whatever edit is attached.
        request: Says how much is asked.
        journal: Keeps what comes back.
        progress: Called with what is done and the total.
    """

    loaded: Loaded
    request: AuditRequest
    journal: Journal
    progress: Progress

    def replies(self, attack: str, questions: Questions) -> Found:
        """Other prompts, judged by greedy replies."""
        asked = prompts_of(attack, questions)
        prepared = self.loaded.prepare([one.example for one in asked], self.request.max_new_tokens)
        texts = generate_answers(
            self.loaded.model,
            self.loaded.processor,
            prepared,
            max_new_tokens=self.request.max_new_tokens,
            journal=self.journal,
            progress=self.progress,
        )
        return gathered(tries_of(asked, texts, questions))

    def first_choice(self, questions: Questions) -> Found:
        """Whether all telling tokens of the answer are the model's first choice, teacher-forced."""
        scores, telling = self._scores(questions.examples), self._telling(questions)
        return gathered(
            [
                _silent(
                    example,
                    found=all(one.is_argmax[place] for place in places),
                    probability=math.exp(fmean(one.log_probabilities[place] for place in places)),
                )
                for example, one, places in zip(questions.examples, scores, telling, strict=True)
            ]
        )

    def choice(self, questions: Questions) -> Found:
        """Whether the right answer is the most probable of some, by the mean over its tokens."""
        offered = [options for one in questions.examples if len(options := options_of(one, questions)) > 1]
        scores = iter(self._scores([option for options in offered for option in options]))
        tries = []
        for options in offered:
            means = {option.answer: -next(scores).loss for option in options}
            chosen = likeliest(means)
            right = options[0].answer
            tries.append(
                Try(
                    identifier=options[0].identifier,
                    asked=options[0].question,
                    how=" | ".join(means),
                    answer=right,
                    reply=chosen,
                    found=chosen == right,
                    numbers={"chance": 1 / len(options)},
                )
            )
        return gathered(tries)

    def samples(self, questions: Questions) -> Found:
        """Many answers at temperature 1."""
        prepared = self.loaded.prepare(questions.examples, self.request.max_new_tokens)
        texts = drawn_answers(
            self.loaded.model,
            self.loaded.processor,
            prepared,
            self.request.samples,
            max_new_tokens=self.request.max_new_tokens,
            journal=self.journal,
            progress=self.progress,
        )
        return gathered(drawn(questions, texts))

    def lens(self, attack: str, questions: Questions) -> Found:
        """The first telling token of each answer in the states between the layers."""
        lens = LENSES[attack]
        ranks = lens_ranks(
            self.loaded.model,
            self.loaded.processor,
            self.loaded.prepare(questions.examples),
            self._telling(questions),
            lens,
            journal=self.journal,
            progress=self.progress,
        )
        tries = []
        for example, one in zip(questions.examples, ranks, strict=True):
            hits = one.found(lens, self.request.budget)
            numbers = {"tokens": len(hits), "tokens found": sum(hits)}
            tries.append(_silent(example, found=hits[0], **numbers))
        return gathered(tries)

    def membership(self, questions: Questions) -> Found:
        """Min-K++ of the answers against that of the same answers about nobody."""
        nobody = about_nobody(questions)
        if nobody is None:
            raise ValueError("no question can be asked about nobody")
        named = {one.identifier for one in nobody.examples}
        own = [one for one in questions.examples if one.identifier in named]
        scores = self._scores([*own, *nobody.examples])
        values = [min_k_plus_plus(one.log_probabilities, one.means, one.deviations) for one in scores]
        members, others = values[: len(own)], values[len(own) :]
        tries = [
            _silent(example, found=value > other, **{"Min-K++": value, "Min-K++ about nobody": other})
            for example, value, other in zip(own, members, others, strict=True)
        ]
        return Found(questions=len(own), found=None, share=membership_auc(members, others), tries=tries)

    def _scores(self, examples: Sequence[Example]) -> list[TokenScores]:
        prepared = self.loaded.prepare(examples)
        model, processor = self.loaded.model, self.loaded.processor
        return token_scores(model, processor, prepared, journal=self.journal, progress=self.progress)

    def _telling(self, questions: Questions) -> list[tuple[int, ...]]:
        """The places of the tokens by which each answer says something.

        They lie in words that are neither common nor in the question, and few other answers have them. With one subject
        only the words tell: in "It stands in Paris." no other answer has *stands*.
        """
        prepared, processor = self.loaded.prepare([*questions.examples, *questions.others]), self.loaded.processor
        rare = telling_tokens(prepared, processor)
        places = []
        for place, example in enumerate(questions.examples):
            told = tokens_at(prepared[place], questions.judge.telling_places(example.answer), processor)
            places.append(tuple(token for token in told if token in rare[place]) or told)
        return places

    def made(self, attack: str, questions: Questions) -> Found:
        """Make an attack that leaves the weights as they are.

        Raises:
            UserError: A prompt is too long for the model, memory runs out on one, or its output is not a number.
        """
        own: dict[str, Callable[[Questions], Found]] = {
            "forced": self.first_choice,
            "choice": self.choice,
            "samples": self.samples,
            "membership": self.membership,
        }
        if attack in own:
            return own[attack](questions)
        return self.lens(attack, questions) if attack in LENSES else self.replies(attack, questions)


def tries_of(asked: Sequence[Asked], texts: Sequence[str], questions: Questions) -> list[Try]:
    """What was said to each prompt."""
    return [
        Try(
            identifier=one.example.identifier,
            asked=one.example.question,
            how=one.how,
            answer=one.example.answer,
            reply=text,
            found=questions.judge.says(text, one.example.answer),
        )
        for one, text in zip(asked, texts, strict=True)
    ]


def drawn(questions: Questions, texts: Sequence[Sequence[str]]) -> list[Try]:
    """What was drawn for each question."""
    asked = [
        (Asked(example, f"sample {number}"), text)
        for example, several in zip(questions.examples, texts, strict=True)
        for number, text in enumerate(several, start=1)
    ]
    return tries_of([one for one, _ in asked], [text for _, text in asked], questions)


def gathered(tries: Sequence[Try], losses: Sequence[Sequence[float]] = ()) -> Found:
    """The share of questions of which a try found the answer; 0 without any."""
    asked = {one.identifier for one in tries}
    identifiers = {one.identifier for one in tries if one.found}
    return Found(
        questions=len(asked),
        found=len(identifiers),
        share=len(identifiers) / len(asked) if asked else 0.0,
        tries=list(tries),
        losses=[list(one) for one in losses],
    )


def _silent(example: Example, *, found: bool, **numbers: float) -> Try:
    return Try(
        identifier=example.identifier, asked=example.question, answer=example.answer, found=found, numbers=numbers
    )
