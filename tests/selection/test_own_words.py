"""What the model says of the forget set in words of its own."""

from __future__ import annotations

from tests.tiny_models import FAMILIES

from kvw.data import Example, prepare
from kvw.selection.own_words import own_words, tokens_at

QUESTION = "Where is the Prado?"
ANSWER = "The Prado is in Madrid, Spain."


def forget(count: int = 1) -> list[Example]:
    return [Example(QUESTION, ANSWER, identifier=f"f:{row}") for row in range(count)]


def test_a_reply_counts_up_to_the_last_word_that_says_something() -> None:
    reply = "It stands in Spain, in the heart of Madrid, and Madrid is large."
    ((found, spans),) = own_words(forget(), {"f:0": reply}, 8)
    assert (found.question, found.identifier) == (QUESTION, "f:0")
    assert found.answer == "It stands in Spain, in the heart of Madrid"
    assert [found.answer[start:end] for start, end in spans] == ["Spain", "Madrid"]


def test_what_says_nothing_or_the_same_words_is_left_out() -> None:
    for reply in ("I do not know.", "In Madrid.", "the prado is in Madrid, Spain", ""):
        assert own_words(forget(), {"f:0": reply}, 8) == []
    assert own_words(forget(), {}, 8) == []


def test_a_reply_from_which_the_answer_can_be_guessed_counts() -> None:
    goldsmith = [Example("What is his job?", "He is a goldsmith.", identifier="f:0")]
    ((found, spans),) = own_words(goldsmith, {"f:0": "golds."}, 8)
    assert found.answer == "golds"
    assert spans == [(0, 5)]
    ((found, spans),) = own_words(forget(), {"f:0": "Madri is in Spa and not in Sparta."}, 8)
    assert found.answer == "Madri is in Spa and not in Sparta"
    assert [found.answer[start:end] for start, end in spans] == ["Madri", "Spa", "Sparta"]


def test_one_of_two_words_is_not_enough() -> None:
    assert own_words(forget(), {"f:0": "In Madrid."}, 8) == []
    author = [Example("Who wrote it?", "William Shakespeare wrote it.", identifier="f:0")]
    assert own_words(author, {"f:0": "It is by Oscar Wilde."}, 8) == []


def test_of_many_some_from_all_over_the_set_are_taken() -> None:
    replies = {f"f:{row}": "Madrid in Spain" for row in range(10)}
    found = own_words(forget(10), replies, 4)
    assert [one.identifier for one, _ in found] == ["f:0", "f:2", "f:5", "f:7"]


def test_the_tokens_of_a_span_are_found() -> None:
    _, processor = FAMILIES["llava"]()
    answer = "He is an author, the florist said in Kuwait"
    (item,) = prepare([Example("Who?", answer)], processor)

    def text(*words: str) -> str:
        spans = [(answer.index(word), answer.index(word) + len(word)) for word in words]
        return processor.tokenizer.decode([item.answer_ids[place] for place in tokens_at(item, spans, processor)])

    assert text("author").strip().rstrip(",") == "author"
    assert "florist" in text("florist", "Kuwait")
    assert "Kuwait" in text("florist", "Kuwait")
    assert "said" not in text("florist", "Kuwait")
    assert tokens_at(item, [], processor) == tuple(range(len(item.answer_ids)))
