"""A request without answers: what a model says about a name, and which of its answers it repeats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from kvw.building.phrasings import Phrasings, filled
from kvw.building.questions import Rows, add_phrasings
from kvw.data import Prepared, prompt_batch, to_model
from kvw.evaluation.generation import decoding
from kvw.evaluation.loaded import Loaded
from kvw.measuring.engine import evaluating
from kvw.progress import Progress, unheard
from kvw.retain.answering import SENTENCE_END, self_answered
from kvw.retain.question import Question
from kvw.retain.said import Said

SAMPLES = 8
"""Answers that are drawn to each question."""
TEMPERATURE = 0.7
RECURS = 0.5
"""Share of the drawn answers that must say what the greedy one says."""
LONGEST = 32
"""Tokens of an answer."""
SEED = 0

Confirm = Callable[["Known"], bool]


@dataclass(frozen=True)
class Known:
    """What a model says about a name.

    Args:
        name: The name.
        questions: Phrasings of one question; the first one was asked.
        answer: The first sentence of the greedy answer.
        again: How many of ``samples`` drawn answers say the same.
        samples: How many were drawn.
    """

    name: str
    questions: tuple[str, ...]
    answer: str
    again: int
    samples: int

    @property
    def recurs(self) -> bool:
        """Whether it is more than a guess."""
        return self.again >= RECURS * self.samples


def ask_about(loaded: Loaded, names: Sequence[str], words: Phrasings, progress: Progress = unheard) -> list[Known]:
    """Ask a model about names of which nothing is known.

    Of a greedy answer the first sentence counts; what follows it differs from time to time. Answers drawn at
    ``TEMPERATURE`` say how sure the model is: a drawn answer says the same if it has more than half of the words that
    tell something (:class:`kvw.retain.said.Said`). Drawing starts from one seed, so a second call gives the same.

    Args:
        loaded: The model, without any edit.
        names: Whom or what to ask about.
        words: Their ``about`` are the questions.
        progress: Called with (questions sampled, questions in all).

    Returns:
        What it answered, name by name; questions without a usable answer, or whose answer says nothing, are left out.
    """
    topics = [(name, tuple(filled(text, name=name) for text in topic)) for name in names for topic in words.about]
    asked = [
        Question(questions[0], (), f"about:{number}", {"topic": number - 1})
        for number, (_, questions) in enumerate(topics, start=1)
    ]
    answers = []
    answered = self_answered(loaded, asked, max_new_tokens=LONGEST)
    for done, whole in enumerate(answered, start=1):
        example = replace(whole, answer=_first_sentence(whole.answer))
        name, questions = topics[example.metadata["topic"]]
        said = Said((question, example.answer) for question in questions)
        if said.by(example.answer):
            drawn = _drawn(loaded, loaded.prepare([example], LONGEST)[0])
            again = sum(said.again(reply, example.answer) for reply in drawn)
            answers.append(Known(name, questions, example.answer, again, len(drawn)))
        progress(done, len(answered))
    return answers


def taken(known: Sequence[Known], confirm: Confirm | None = None) -> Rows:
    """Rows about what a model knows.

    Args:
        known: From :func:`ask_about`.
        confirm: Decides on each; None takes those that recur.
    """
    rows = Rows()
    for one in known:
        if confirm(one) if confirm is not None else one.recurs:
            add_phrasings(rows, [(question, one.answer) for question in one.questions], one.name)
    return rows


def _first_sentence(text: str) -> str:
    """What follows a first sentence is said in other words every time."""
    end = SENTENCE_END.search(text)
    return text[: end.end()] if end else text


def _drawn(loaded: Loaded, item: Prepared) -> list[str]:
    model, processor = loaded.model, loaded.processor
    inputs = to_model(prompt_batch([item] * SAMPLES, processor), model)
    with torch.random.fork_rng(), evaluating(model), torch.no_grad():
        torch.manual_seed(SEED)
        with decoding(model, processor.tokenizer, LONGEST, temperature=TEMPERATURE):
            produced = model.generate(**inputs, generation_config=model.generation_config)  # type: ignore[operator]
    texts = processor.tokenizer.batch_decode(produced[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [str(text).strip() for text in texts]
