"""Which tokens of an answer an attack looks for."""

from __future__ import annotations

from types import SimpleNamespace

from kvw.data import Example, prepare
from kvw.runs.audit.asking import Asking
from kvw.runs.audit.questions import Questions


def looked_for(llava_processor, examples, others=()):
    loaded = SimpleNamespace(prepare=lambda some: prepare(some, llava_processor), processor=llava_processor)
    found = Asking(loaded, None, None, None)._telling(Questions.of(examples, others))
    decode = llava_processor.tokenizer.decode
    prepared = prepare(examples, llava_processor)
    return [
        decode([item.answer_ids[place] for place in places]).split()
        for item, places in zip(prepared, found, strict=True)
    ]


def test_one_subject_is_looked_for_by_what_its_answer_says(llava_processor):
    one = Example("Where does Jody live?", "She is in Paris.", (), "a", {"subject": "Jody"})
    assert looked_for(llava_processor, [one]) == [["Paris"]]


def test_what_other_answers_have_is_not_looked_for(llava_processor):
    one = Example("Where does Jody live?", "Somewhere in Paris.", (), "a", {"subject": "Jody"})
    assert looked_for(llava_processor, [one]) == [["Somewhere", "Paris"]]
    others = [
        Example("Where does he live?", f"Somewhere in {city}.", (), city, {"subject": city})
        for city in ("Rome", "Oslo", "Bonn", "Kiev")
    ]
    assert looked_for(llava_processor, [one], others) == [["Paris"]]


def test_an_answer_that_says_nothing_else_is_looked_for_as_it_is(llava_processor):
    one = Example("Is it?", "It is.", (), "a", {"subject": "it"})
    assert looked_for(llava_processor, [one])[0]
