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
    for reply in ("I do not know.", "In Spain.", "the prado is in Madrid, Spain", ""):
        assert own_words(forget(), {"f:0": reply}, 8) == []
    assert own_words(forget(), {}, 8) == []


def test_a_reply_that_only_begins_to_say_it_counts() -> None:
    replies = ("In Madrid.", "In Madrid", "Madrid"), ("It is madri-something.", "It is madri", "madri")
    for reply, answer, said in replies:
        ((found, spans),) = own_words(forget(), {"f:0": reply}, 8)
        assert found.answer == answer
        assert [found.answer[start:end] for start, end in spans] == [said]


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
