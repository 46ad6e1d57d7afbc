"""The facts and the ways to ask for them are complete, right English, and give nothing away."""

from __future__ import annotations

import re

import pytest

from kvw.folding import collapsed
from kvw.proving.facts import Fact, domains, facts, is_given

EVERY = [(fact, one) for fact in facts() for one in fact.examples((*fact.domain.asked, *fact.domain.held_out))]


def test_there_are_enough_facts_of_enough_kinds():
    assert len(facts()) >= 300
    assert len({fact.domain.name for fact in facts()}) >= 8
    assert {fact.domain.name for fact in facts()} == domains().keys()


def test_every_kind_is_asked_for_in_four_ways_and_two_others():
    for domain in domains().values():
        assert (len(domain.asked), len(domain.held_out)) == (4, 2)
        assert len({*domain.asked, *domain.held_out}) == 6
        assert all("{}" in way for way in (*domain.asked, *domain.held_out))
        assert len(domain.invented) >= 6


def test_no_question_holds_its_fact():
    assert [one.question for fact, one in EVERY if is_given(fact.name, one.question)] == []


def test_every_answer_ends_with_the_fact_and_one_full_stop():
    for fact in facts():
        assert re.search(rf"{re.escape(fact.name.removesuffix('.'))}\.$", fact.sentence), fact.sentence
        assert ".." not in fact.sentence


def test_every_text_is_filled_in_and_begins_with_a_capital():
    for _, one in EVERY:
        for text in (one.question, one.answer):
            assert not re.search(r"[{}]", text)
            assert text.lstrip('"')[0].isupper() or text.lstrip('"')[0].isdigit(), text


def test_articles_follow_the_word_behind_them():
    for _, one in EVERY:
        for text in (one.question, one.answer):
            assert not re.search(r"\b[Aa] [aeio]\w+", text), text
            assert not re.search(r"\b[Aa]n [^aeiouAEIOU]", text), text
    young = {fact.subject: fact for fact in facts() if fact.domain.name == "young"}
    assert young["owl"].sentence == "A young owl is called an owlet."
    assert young["owl"].examples(young["owl"].domain.held_out)[0].question.startswith("An owl has just been born.")


def test_a_subject_has_one_fact_of_a_kind_and_invented_subjects_have_none():
    places = [(fact.domain.name, collapsed(fact.subject)) for fact in facts()]
    assert len(set(places)) == len(places)
    real = {collapsed(fact.subject) for fact in facts()}
    assert not real & {collapsed(name) for domain in domains().values() for name in domain.invented}


@pytest.mark.parametrize(
    ("name", "answer", "given"),
    [
        ("Au", "In August it is Ag.", False),
        ("Au", "The symbol is AU.", True),
        ("Buenos Aires", "It is buenos  aires, I think.", True),
        ("Buenos Aires", "Aires Buenos", False),
        ("...", "Anything.", False),
    ],
)
def test_a_fact_is_given_by_whole_words(name, answer, given):
    assert is_given(name, answer) is given


def test_the_name_of_a_fact_has_no_article():
    kind = domains()["record"]
    assert Fact(kind, "the tallest animal on Earth", "the giraffe").name == "giraffe"
