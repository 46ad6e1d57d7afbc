"""Which facts a model knows: the rule, and that it is worked out once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests import text_models

from kvw.data import prepare
from kvw.data.text import TextProcessor
from kvw.errors import UserError
from kvw.models.checkpoint import find_checkpoint
from kvw.proving import known
from kvw.proving.facts import facts
from kvw.proving.known import fact_tokens, known_facts

FACTS = [fact for fact in facts() if fact.domain.name == "capital"][:3]


@pytest.fixture
def checkpoint(tmp_path):
    return find_checkpoint(str(text_models.save("qwen3", tmp_path / "model")))


@pytest.fixture
def asked(monkeypatch):
    """Scores by hand: what was asked, and which questions are answered rightly."""
    questions: list[str] = []
    right: set[str] = set()
    real = known.token_scores

    def scores(model, processor, prepared, **more):
        questions.extend(item.example.question for item in prepared)
        return [
            replace(score, is_argmax=(item.example.question in right,) * len(score.is_argmax))
            for item, score in zip(prepared, real(model, processor, prepared), strict=True)
        ]

    monkeypatch.setattr(known, "token_scores", scores)
    return questions, right


def ways(fact, places):
    every = fact.examples((*fact.domain.asked, *fact.domain.held_out))
    return [every[place].question for place in places]


def test_known_is_three_of_four_and_one_of_two(checkpoint, asked):
    _, right = asked
    right.update(ways(FACTS[0], [0, 1, 3, 5]), ways(FACTS[1], [0, 1, 4, 5]), ways(FACTS[2], [0, 1, 2, 3]))
    assert known_facts(checkpoint, candidates=FACTS) == (FACTS[0],)


def test_it_is_worked_out_once_for_a_model_and_again_for_other_facts(checkpoint, asked, monkeypatch):
    questions, right = asked
    right.update(ways(FACTS[0], [1, 2, 3, 4]))
    first = known_facts(checkpoint, candidates=FACTS)
    # The two facts without a held-out way are not asked any further.
    assert len(questions) == 2 * 3 + 4 * 1
    monkeypatch.setattr(known, "load_model", lambda checkpoint: pytest.fail("the model was loaded again"))
    assert known_facts(checkpoint, candidates=FACTS) == first == (FACTS[0],)
    with pytest.raises(pytest.fail.Exception, match="loaded again"):
        known_facts(checkpoint, candidates=FACTS[:2])


def test_the_tokens_of_the_fact_alone_count():
    processor = TextProcessor(text_models.build("qwen3")[1])
    for fact in FACTS:
        (item,) = prepare(fact.examples(fact.domain.asked[:1]), processor)
        place = fact_tokens(fact.name, item.answer_ids, processor)
        assert processor.tokenizer.decode(item.answer_ids[place.start : place.stop]).strip() == fact.name
    with pytest.raises(UserError, match="does not hold the fact"):
        fact_tokens("Atlantis", item.answer_ids, processor)
