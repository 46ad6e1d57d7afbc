"""Questions that the model answers itself, so that what must stay is what it says already."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

from kvw.data import Example, Prepared, prepare
from kvw.errors import UserError
from kvw.evaluation.answers import kept_answers
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.language import is_broken
from kvw.folding import stands_alone
from kvw.measuring.in_memory import InMemory
from kvw.progress import Progress
from kvw.retain.question import Question

LONGEST_ANSWER = 32
"""Longest answer in tokens. The beginning of a longer one serves as well: what it teaches is how to begin."""
SENTENCE_END = re.compile(r"(?<=\w{3})[.!?]+[\"'\u201d\u2019)]*(?=\s|$)|[\u3002\uff01\uff1f]+")
"""The end of a sentence, after a word of at least three letters. A mark after a shorter word may end an
abbreviation."""
OPENS = ("Ps", "Pi", "Sc")
"""Unicode categories of what stands before a word with no space after it: brackets, quotes, and currencies."""
NOT_YET = "-"
"""Stands for the answer while a question is rendered."""
CUT_CHARACTER = "\ufffd"
"""What decoding makes of a character of which the last tokens are missing."""


def self_answered(
    loaded: InMemory,
    questions: Sequence[Question],
    *,
    max_new_tokens: int = LONGEST_ANSWER,
    progress: Progress | None = None,
) -> list[Example]:
    """Let a model answer questions: greedy, by its own chat template.

    Where a question has an opening, the model goes on from there, and the answer is the sentence that comes of it.

    Answers are kept in the cache directory as they come, under everything that they depend on (the model, the
    questions, the versions). So a second call on the same model generates nothing, and a call after an interruption
    only what is missing. Several processes keep nothing.

    Args:
        loaded: The model, without any edit.
        questions: What to ask.
        max_new_tokens: The longest answer in tokens. What is longer is cut off behind its last complete sentence, or,
            if it has none, there.
        progress: Called with (questions answered, questions in all).

    Returns:
        The questions with their answers, in order. Those are left out that the model cannot be asked (see
        :func:`usable`), and those whose answer is empty, ends in a loop, or cannot be given back to this model (it
        holds a placeholder for an image, say).

    Raises:
        UserError: Model and processor do not fit together, or memory runs out on a single question.
    """
    unanswered = [question.answered(question.opening or NOT_YET) for question in questions]
    asked = usable(unanswered, loaded, max_new_tokens)
    with kept_answers(loaded, asked, max_new_tokens) as journal:
        answers = generate_answers(
            loaded.model,
            loaded.processor,
            [_opened(item) for item in loaded.prepare(asked, max_new_tokens)],
            max_new_tokens=max_new_tokens,
            journal=journal,
            progress=progress,
        )
    answered = [
        replace(example, answer=_answer(example, answer.rstrip(CUT_CHARACTER).strip(), loaded, max_new_tokens))
        for example, answer in zip(asked, answers, strict=True)
    ]
    return usable([example for example in answered if not is_broken(example.answer)], loaded)


def _opened(item: Prepared) -> Prepared:
    """The prompt with the opening of the answer behind it, if there is one."""
    if item.example.answer == NOT_YET:
        return item
    return replace(item, prompt=item.full, length=item.length + len(item.answer_ids))


def _answer(example: Example, generated: str, loaded: InMemory, longest: int) -> str:
    """What a model has answered; after an opening the first sentence of it."""
    opening = example.answer
    if opening == NOT_YET or not generated:
        return _whole_sentences(generated, loaded, longest)
    end = SENTENCE_END.search(generated)
    line = (generated[: end.end()] if end else generated).partition("\n")[0]
    return f"{opening}{' ' * _needs_space(opening, line)}{line}"


def _needs_space(opening: str, rest: str) -> bool:
    """Whether a space belongs between an opening and what a model goes on with: generated text comes without it."""
    last, first = opening[-1], rest[0]
    if stands_alone(last) or stands_alone(first):
        return False
    opens = unicodedata.category(first) in OPENS or (first == '"' and opening.count('"') % 2 == 0)
    return first.isalnum() or opens


def usable(examples: Sequence[Example], loaded: InMemory, new_tokens: int = 0) -> list[Example]:
    """The examples that a model can be shown.

    Some models cannot be asked without a picture, and the context of others is too short.

    Args:
        examples: Examples of the tool's own, so that the user can do nothing about one that is refused.
        loaded: The model.
        new_tokens: The longest answer that will be generated, in tokens.
    """
    return [example for example in examples if _can_be_shown(example, loaded, new_tokens)]


def _whole_sentences(answer: str, loaded: InMemory, longest: int) -> str:
    """The answer without the beginning of a sentence at its end, if that sentence was cut off. An answer of one
    sentence stays."""
    tokens = loaded.processor.tokenizer(answer, add_special_tokens=False)["input_ids"]
    if len(tokens) < longest - 1:  # one that ends by itself has its end token, too
        return answer
    ends = [found.end() for found in SENTENCE_END.finditer(answer)]
    return answer[: ends[-1]] if ends else answer


def _can_be_shown(example: Example, loaded: InMemory, new_tokens: int) -> bool:
    try:
        prepare([example], loaded.processor, loaded.model.config, new_tokens=new_tokens)
    except UserError:
        return False
    return True
