"""Error injection and empty response, defences of UnLOK-VQA: another answer is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvw.errors import UserError
from kvw.methods.gradient.method import GradientMethod
from kvw.methods.gradient.settings import TrainedSettings
from kvw.methods.gradient.unlok import DefenceSettings, asked, trained_layer
from kvw.methods.method import LoadedModel

if TYPE_CHECKING:
    from kvw.data import Example
    from kvw.training.objective import Objective
    from kvw.training.trainee import Trainee


@dataclass(frozen=True)
class ErrorInjectionSettings(DefenceSettings):
    """Error injection: wrong answers to the forget questions are learnt.

    Args:
        alternatives: For each forget example, in order, the wrong answer. Without any, each question learns the answer
            of the next forget example that answers otherwise.
    """

    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True)
class EmptyResponseSettings(DefenceSettings):
    """Empty response: one answer that says nothing is learnt for every forget question.

    Args:
        answer: That answer.

    Raises:
        UserError: A value makes no sense.
    """

    answer: str = "I don't know."

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.answer.strip():
            raise UserError(
                "answer must hold a word: an empty one cannot be trained.",
                found=repr(self.answer),
                do="give the answer that the model is to say",
            )


def error_injection(trainee: Trainee, settings: ErrorInjectionSettings) -> Objective:
    """Minimise the mean negative log-likelihood per token of wrong answers to the forget questions, + c L_r.

    Source: Patil et al. (UnLOK-VQA), arXiv 2505.01456, and their code.

    Raises:
        UserError: All forget answers are the same, and no others are given.
    """
    wrong = settings.alternatives or _of_others([one.example.answer for one in trainee.forget])
    return _learning(trainee, settings, wrong)


def empty_response(trainee: Trainee, settings: EmptyResponseSettings) -> Objective:
    """:func:`error_injection` with one answer for all questions."""
    return _learning(trainee, settings, [settings.answer] * len(trainee.forget))


def _learning(trainee: Trainee, settings: DefenceSettings, answers: Sequence[str]) -> Objective:
    from kvw.methods.gradient.refusals import with_answers
    from kvw.training.losses import descent
    from kvw.training.objective import Objective

    questions = asked(trainee, settings)
    times = len(questions) // len(trainee.forget) - 1  # the rephrased questions of one example stand together
    repeated = [*answers, *(answer for answer in answers for _ in range(times))]
    learnt = with_answers(questions, trainee.processor, repeated, trainee.model.config)
    return Objective(forget=descent(1.0), retain=descent(settings.retain_weight), examples=learnt)


def _of_others(answers: Sequence[str]) -> list[str]:
    found = []
    for place, answer in enumerate(answers):
        others = [*answers[place + 1 :], *answers[:place]]
        other = next((one for one in others if one.casefold() != answer.casefold()), None)
        if other is None:
            raise UserError(
                "There is no wrong answer to learn: all forget answers are the same.",
                found=answer,
                do="give alternatives, one for each forget example, or take --method empty-response",
            )
        found.append(other)
    return found


class ErrorInjection(GradientMethod):
    """Looks for wrong answers before anything is trained."""

    def check(self, loaded: LoadedModel, forget: Sequence[Example], settings: TrainedSettings) -> None:
        """Look for wrong answers before anything is trained.

        Raises:
            UserError: All forget answers are the same, and no others are given.
        """
        super().check(loaded, forget, settings)
        if not settings.method_settings.alternatives:
            _of_others([example.answer for example in forget])


METHOD = ErrorInjection("error-injection", ErrorInjectionSettings, error_injection, trained_layer)
EMPTY = GradientMethod("empty-response", EmptyResponseSettings, empty_response, trained_layer)
