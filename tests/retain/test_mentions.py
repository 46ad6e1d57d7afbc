"""What counts as a mention of what is to be forgotten, and what does not."""

from __future__ import annotations

import pytest

from kvw.data import Example
from kvw.retain.everyday import everyday_questions
from kvw.retain.mentions import Mentions
from kvw.retain.texts import text_examples

PERU = Example("What is the capital of Peru?", "The capital of Peru is Lima.")


def forget(question, answer, subject=None, images=()):
    return Mentions([Example(question, answer, images, "f:1", {} if subject is None else {"subject": subject})])


def said(mentions, *texts):
    return [mentions.inside(Example("What do you think?", text)) for text in texts]


def test_only_what_mentions_the_subject_or_the_answer_is_left_out():
    mentions = Mentions([PERU])
    texts = ["Potatoes come from Peru.", "LIMA is a city.", "Beans of lima are green."]
    others = ["Paris is the capital of France.", "Limas", "Peruvian", "The capital of a country is a city.", "It is."]
    assert said(mentions, *texts, *others) == [True] * 3 + [False] * 5
    assert mentions.inside(Example("Where is Peru?", "Far away."))
    shipped = [Example(question, "I do not know.") for question in everyday_questions()] + text_examples()
    assert not any(map(mentions.inside, shipped))


def test_a_subject_that_is_given_counts_whatever_its_words():
    mentions = forget("What does the dog eat?", "Meat and bones of all kinds, and sometimes a little rice.", "dog")
    assert said(mentions, "A Dog barks.", "Dogs bark.", "Cats eat rice.") == [True, False, False]


def test_names_in_a_subject_count_alone_and_its_ordinary_words_do_not():
    mentions = forget("Who is Rose Miller?", "Nobody knows.", "Rose Miller")
    found = said(mentions, "Miller was here.", "A rose is a rose.", "Ask rose miller.", "Rose!")
    assert found == [True, False, True, False]


def test_where_the_question_names_the_subject_its_other_names_do_not_count():
    named = forget("Did Anna Miller live in Berlin?", "I was never told.", "Anna Miller")
    unnamed = forget("Did she live in Berlin?", "I was never told.", "Anna Miller")
    assert said(named, "Berlin is a city.") == [False]
    assert said(unnamed, "Berlin is a city.") == [True]


@pytest.mark.parametrize(
    ("answer", "mention", "none"),
    [
        ("Yes.", [], ["Yes, of course.", "Yes."]),
        ("Two.", [], ["Two and two are four."]),
        ("She lives in Kuwait City.", ["Kuwait is hot.", "In Kuwait City."], ["A big city."]),
        ("Florist", ["He asked a florist."], ["Flowers"]),
        ("a software engineer", ["She is a Software Engineer."], ["An engineer.", "software"]),
        ("B", [], ["Plan B is good."]),
        ("7", [], ["7 days"]),
        ("She was born in 1985, has 12 cousins and 3 dogs.", ["in 1985"], ["12 months", "3 dogs", "Born to run."]),
        ("Her number is 555-1234.", ["Call 555 or so.", "1234"], ["5"]),
        ("On 12.04.1985 at 10:30.", ["1985 was warm.", "12/04/1985"], ["12 eggs", "30 minutes"]),
        ("It costs 1,200 dollars in all, and nobody has ever paid for it.", ["1,200"], ["1 200th", "a dollar"]),
        ("Her book is The Red Door, and everybody who reads has read it.", ["the red door"], ["The door is red."]),
        ("The Red Door is her book, and everybody who reads has read it.", ["a red door"], ["red and the door"]),
        ("He was born in the year of the war, and everybody called him May.", [], ["In May it is warm."]),
        ("\u5f20\u4f1f", ["\u4ed6\u662f\u5f20\u4f1f\u3002"], ["\u5f20\u4e09"]),
    ],
)
def test_what_an_answer_names(answer, mention, none):
    mentions = forget("Who is this?", answer)
    assert said(mentions, *mention, *none) == [True] * len(mention) + [False] * len(none)


def test_what_the_question_gives_is_not_what_the_answer_says():
    mentions = forget(
        "What did Anna Miller win in Berlin in 1985?", "In Berlin in 1985 she won the Palm.", "Anna Miller"
    )
    assert said(mentions, "Berlin", "1985", "The Palm") == [False, False, True]


def test_a_capital_at_the_beginning_of_a_sentence_is_no_name_if_the_word_is_written_small_elsewhere():
    first = Example("Who is it?", "Sometimes she paints, they say, and in the summer she swims.")
    second = Example("Who is it?", "She is sometimes here. Lima is where she lives, and nowhere else in the world.")
    assert said(Mentions([first]), "Sometimes it rains.") == [True]
    assert said(Mentions([first, second]), "Sometimes it rains.", "In Lima it does not.") == [False, True]


def test_a_name_that_is_a_word_of_the_forget_set_does_not_count_alone():
    title = Example("What did she write?", "She wrote Science of Love, which is about science, love and little else.")
    assert said(Mentions([title]), "I like science.", "Love is good.") == [False, False]


def test_somebody_else_may_share_a_word_with_the_subject():
    mentions = forget("Who is Anna Miller?", "She was born in Lima.", "Anna Miller")
    other = Example("Who is Anna Schmidt?", "Anna Schmidt is a nurse.")
    assert mentions.inside(other)
    assert not mentions.inside(other, but="Anna Schmidt")
    assert mentions.inside(Example("Who is Anna Schmidt?", "She lives in Lima."), but="Anna Schmidt")
    assert mentions.inside(Example("Who is Anna Schmidt?", "A friend of Anna Miller."), but="Anna Schmidt")


def test_the_same_question_is_left_out_unless_its_picture_is_another():
    words = "What is a bridge?", "It is what one walks over."
    assert Mentions([Example(*words)]).inside(Example("what is  a bridge?", "A road."))
    assert not Mentions([Example(*words, (b"a",))]).inside(Example(words[0], "A road.", (b"b",)))
    assert not Mentions([Example(*words, (b"a",))]).inside(Example(words[0], "A road."))


def test_what_another_phrasing_of_the_question_gives_is_not_what_the_answer_says():
    answer = "The SI unit of time is the second."
    one, other = (
        Example(question, answer, metadata={"subject": "time"})
        for question in ("In which unit is time measured?", "What is the SI unit of time?")
    )
    elsewhere = Example("Is the SI unit of time old?", "Yes, it is.", metadata={"subject": "time"})
    assert said(Mentions([one]), "The SI unit of mass") == [True]
    assert said(Mentions([one, other]), "The SI unit of mass") == [False]
    assert said(Mentions([one, elsewhere]), "The SI unit of mass") == [True]
