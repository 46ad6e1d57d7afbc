"""The first line of a report says what the record says, and nothing where the record says nothing."""

from __future__ import annotations

from typing import Any

from tests.pages.records import record, selection, split

from kvw.pages.verdict import floored, verdict
from kvw.records.run import FreelyPart, LanguagePart, SplitPart

OTHERS = split(36, 36, about="others")


def told(splits: dict[str, SplitPart], **changed: Any) -> tuple[str, list[str]]:
    found = verdict(record(splits, **changed))
    return found.mark, [sentence.replace("\N{NO-BREAK SPACE}", " ") for sentence in found.sentences]


def test_all_is_forgotten_and_kept() -> None:
    mark, sentences = told({"forget": split(36, 0, part="used"), "others": OTHERS})
    assert mark == "Forgotten"
    assert sentences == [
        "Forgot 36 of 36 questions.",
        "Kept 100 % of what others are asked, on 36 questions about subjects that the edit never saw.",
    ]


def test_one_is_still_answered_by_name() -> None:
    by_name = split(36, 1, pictures=0)
    mark, sentences = told({"forget": split(36, 0, part="used"), "others": OTHERS, "text": by_name})
    assert mark == "Forgotten in part"
    assert sentences[2] == "One of 36 is still answered when asked by name."


def test_splits_without_photos_are_by_name_only_beside_photos() -> None:
    words = split(36, 2, pictures=0)
    _, sentences = told({"forget": split(36, 0, part="used", pictures=0), "new_phrasings": words})
    assert sentences[2] == "2 of 36 are still answered in “new phrasings”."


def test_what_is_asked_in_other_ways_and_all_forgotten() -> None:
    _, sentences = told({"forget": split(36, 0), "photos": split(30, 0)})
    assert sentences[2] == "None of 36 other questions about the forgotten is answered."


def test_a_part_of_what_was_known_is_forgotten() -> None:
    mark, sentences = told({"forget": split(30, 12), "others": OTHERS})
    assert mark == "Forgotten in part"
    assert sentences[0] == "Forgot 18 of the 30 forget questions that were answered before."


def test_all_that_was_known_is_forgotten() -> None:
    assert told({"forget": split(30, 0)})[1][0] == "Forgot all 30 forget questions that were answered before."
    assert told({"forget": split(1, 0)})[1][0] == "Forgot the one forget question that was answered before."
    assert told({"forget": split(1, 0, count=1)})[1][0] == "Forgot 1 of 1 question."


def test_others_that_the_edit_saw_in_part_are_counted_beside_what_was_held_out() -> None:
    seen = split(25, 23, about="others", new=False)
    _, sentences = told({"forget": split(36, 0), "unused": seen}, selection=selection())
    assert sentences[1] == (
        "Kept 99.0 % of the probability of answers about others, on questions held out from it. Of 25 questions in "
        "“unused” that were answered before, 23 still are."
    )


def test_what_others_are_answered_freely_is_said() -> None:
    freely = FreelyPart(questions=12, answered=11)
    _, sentences = told({"forget": split(36, 0)}, selection=selection().model_copy(update={"freely": freely}))
    assert sentences[1].endswith("Asked freely, 11 of 12 of them still get their answer.")


def test_what_is_answered_only_afterwards_is_said() -> None:
    _, sentences = told({"forget": split(30, 12, gained=1)})
    assert sentences[0].endswith("One that was not answered before is answered now.")


def test_nothing_is_forgotten() -> None:
    mark, sentences = told({"forget": split(36, 36), "others": OTHERS})
    assert mark == "Not forgotten"
    assert sentences[0] == "Forgot none of 36 questions."


def test_what_was_not_known_cannot_be_forgotten() -> None:
    mark, sentences = told({"forget": split(0, 0), "others": OTHERS})
    assert mark == "Not known"
    assert sentences[0] == "No forget question was answered before the edit: what was forgotten is not known."


def test_the_loop_tells_what_free_answers_do_not() -> None:
    mark, sentences = told({"forget": split(0, 0)}, selection=selection(4, 1))
    assert mark == "Forgotten in part"
    assert sentences == [
        "No forget question was answered before the edit, asked freely. Word by word (teacher-forced), 1 of the 4 "
        "answers that were its first choice is so still.",
        "Kept 99.0 % of the probability of answers about others, on questions held out from it.",
    ]


def test_others_pay() -> None:
    mark, sentences = told({"forget": split(36, 0), "others": split(36, 30, about="others")})
    assert mark == "Forgotten; others pay"
    assert sentences[1].startswith("Kept 83 % of what others are asked")


def test_kept_is_judged_by_those_that_the_edit_never_saw_first() -> None:
    seen = split(36, 0, about="others", new=False)
    used = split(36, 0, about="others", part="used")
    judged = split(36, 0, about="others", part="judged")
    _, sentences = told({"forget": split(36, 0), "a": seen, "b": used, "c": judged, "others": OTHERS})
    assert sentences[1].startswith("Kept 100 % of what others are asked, on 36 questions")
    _, sentences = told({"forget": split(36, 0), "a": seen, "retain": split(36, 18, about="others", part="used")})
    assert sentences[1] == "Kept 50 % of the retain set's answers; what others lost is not known."


def test_own_words_that_are_left_are_no_full_success() -> None:
    found = selection()
    extra = {"forget, own words": found.original["forget"]}
    chosen = found.candidates[1].model_copy(update={"splits": found.candidates[1].splits | extra})
    found = found.model_copy(update={"original": found.original | extra, "candidates": [chosen]})
    assert told({"forget": split(36, 0), "others": OTHERS}, selection=selection())[0] == "Forgotten"
    assert told({"forget": split(36, 0), "others": OTHERS}, selection=found)[0] == "Forgotten in part"


def test_damage_comes_before_everything() -> None:
    damaged = LanguagePart(perplexity=None, broken=None, damage=["The perplexity went up."])
    mark, sentences = told({"forget": split(36, 0), "others": OTHERS}, language=damaged)
    assert mark == "Damaged"
    assert sentences[-1] == "The perplexity went up."


def test_shares_are_never_rounded_up() -> None:
    assert [floored(0.999), floored(1.0), floored(0.9996, 1), floored(0.29)] == [
        f"{text}\N{NO-BREAK SPACE}%" for text in ("99", "100", "99.9", "29")
    ]


def test_replies_that_begin_right_are_no_full_success() -> None:
    one = split(36, 0)
    begun = one.model_copy(update={"answers": one.answers.model_copy(update={"begun": 3})})
    mark, sentences = told({"forget": begun, "others": split(40, 40, count=40, about="others")})
    assert mark == "Forgotten in part"
    assert sentences[:2] == [
        "Forgot 36 of 36 questions.",
        "3 of the new replies still begin to say the right answer.",
    ]
    single = one.model_copy(update={"answers": one.answers.model_copy(update={"begun": 1})})
    assert "One of the new replies still begins to say the right answer." in told({"forget": single})[1]


def test_replies_that_are_gibberish_are_said() -> None:
    one = split(36, 0)
    broken = one.model_copy(update={"answers": one.answers.model_copy(update={"broken": 3})})
    mark, sentences = told({"forget": broken, "others": OTHERS})
    assert mark == "Forgotten; it shows"
    assert sentences[:2] == ["Forgot 36 of 36 questions.", "3 of the new replies are gibberish or a loop."]
