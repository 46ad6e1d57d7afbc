"""Questions that the model answers itself, so that what must stay is what it says already."""

from __future__ import annotations

from collections.abc import Sequence

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
        The questions with their answers, in order. Those are left out whose answer is empty, ends in a loop, or is no
        answer that this model can be given back (it holds a placeholder for an image, say).

    Raises:
        UserError: A question cannot be asked, or memory runs out on a single one.
    """
    unanswered = [question.answered(NOT_YET) for question in questions]
    prepared = loaded.prepare(unanswered, max_new_tokens)
    with kept_answers(loaded, unanswered, max_new_tokens) as journal:
        answers = generate_answers(
            loaded.model,
            loaded.processor,
            prepared,
            max_new_tokens=max_new_tokens,
            journal=journal,
            progress=progress,
        )
    answered = [
        question.answered(answer.rstrip(CUT_CHARACTER).strip())
        for question, answer in zip(questions, answers, strict=True)
    ]
    return [example for example in answered if not is_broken(example.answer) and _can_be_given(example, loaded)]


def _can_be_given(example: Example, loaded: Loaded) -> bool:
    """Whether the answer can be given back; that the question can be asked has been seen."""
    try:
        prepare([example], loaded.processor, loaded.model.config)
    except UserError:
        return False
    return True
