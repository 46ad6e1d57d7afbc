"""Questions that the model answers itself, so that what must stay is what it says already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvw.data import Example, prepare
from kvw.errors import UserError
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.language import is_broken
from kvw.progress import Progress
from kvw.retain.question import Question
from kvw.runs.answers import kept_answers
from kvw.runs.loaded import Loaded

LONGEST_ANSWER = 32
"""In tokens. The beginning of a longer answer is an answer as good: what it teaches is how to begin."""
NOT_YET = "-"
"""Stands for the answer while a question is rendered."""
CUT_CHARACTER = "\ufffd"
"""What decoding makes of a character of which the last tokens are missing."""


def self_answered(
    loaded: Loaded,
    questions: Sequence[Question],
    *,
    max_new_tokens: int = LONGEST_ANSWER,
    progress: Progress | None = None,
) -> list[Example]:
    """Let a model answer questions: greedy, by its own chat template.

    Answers are kept in the cache directory as they come, under everything that they depend on (the model, the
    questions, the versions). So a second call on the same model generates nothing, and a call after an interruption
    only what is missing. Several processes keep nothing.

    Args:
        loaded: The model, without any edit.
        questions: What to ask.
        max_new_tokens: The longest answer in tokens; what is longer is cut off there.
        progress: Called with (questions answered, questions in all).

    Returns:
        The questions with their answers, in order. Those are left out that the model cannot be asked (see
        :func:`usable`), and those whose answer is empty, ends in a loop, or cannot be given back to this model (it
        holds a placeholder for an image, say).

    Raises:
        UserError: Model and processor do not fit together, or memory runs out on a single question.
    """
    unanswered = [question.answered(NOT_YET) for question in questions]
    asked = usable(unanswered, loaded, max_new_tokens)
    with kept_answers(loaded, asked, max_new_tokens) as journal:
        answers = generate_answers(
            loaded.model,
            loaded.processor,
            loaded.prepare(asked, max_new_tokens),
            max_new_tokens=max_new_tokens,
            journal=journal,
            progress=progress,
        )
    answered = [
        replace(example, answer=answer.rstrip(CUT_CHARACTER).strip())
        for example, answer in zip(asked, answers, strict=True)
    ]
    return usable([example for example in answered if not is_broken(example.answer)], loaded)


def usable(examples: Sequence[Example], loaded: Loaded, new_tokens: int = 0) -> list[Example]:
    """Those of the examples that a model can be shown.

    Some models cannot be asked without a picture, and the context of others is too short.

    Args:
        examples: Of the tool's own, so that the user can do nothing about one that is refused.
        loaded: The model.
        new_tokens: The longest answer that will be generated, in tokens.
    """
    return [example for example in examples if _can_be_shown(example, loaded, new_tokens)]


def _can_be_shown(example: Example, loaded: Loaded, new_tokens: int) -> bool:
    try:
        prepare([example], loaded.processor, loaded.model.config, new_tokens=new_tokens)
    except UserError:
        return False
    return True
