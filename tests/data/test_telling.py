"""Which tokens of an answer say something."""

import pytest
from tests.tiny_models import FAMILIES

from kvw.data import Example, prepare
from kvw.data.telling import DECODED, beginnings, telling_tokens, token_starts

WORDS = ("Paris", "Kuwait", "florist", "author", "woman", "occupation")
"""Each has a token of its own in the tiny vocabulary."""


def told(examples: list[Example]) -> list[str]:
    _, processor = FAMILIES["llava"]()
    prepared = prepare(examples, processor)
    found = telling_tokens(prepared, processor)
    decode = processor.tokenizer.decode
    return [
        "".join(decode([item.answer_ids[place]]) for place in places).strip()
        for item, places in zip(prepared, found, strict=True)
    ]


def test_what_the_question_says_and_what_many_answers_say_tells_nothing() -> None:
    found = told([Example(f"Which word is number {row}?", f"It has to be {word}.") for row, word in enumerate(WORDS)])
    assert [word for word in found if "has" in word or "." in word] == []
    assert all(len(set(word) & set(expected)) > 1 for word, expected in zip(found, WORDS, strict=True))


def test_a_rare_token_of_the_question_tells_nothing() -> None:
    (found,) = told([Example("Is Paris in Kuwait?", "Paris florist.")])
    assert "Paris" not in found
    assert "florist" in found


def test_words_are_compared_not_their_tokens() -> None:
    (found,) = told([Example("Is it unfgtable?", "Paris bean.")])
    assert found.endswith("bean")  # each of its letters is a token of the question
    (found,) = told([Example("Is it unfgtable?", "Paris unfgtable.")])
    assert found.strip() == "Paris"


@pytest.mark.parametrize("family", ["llava", "qwen2_vl"])
def test_places_in_a_long_answer_are_those_of_the_whole_text(family: str) -> None:
    _, processor = FAMILIES[family]()
    answer = " ".join(f"Größe {row} Paris 東京, florist!" for row in range(40))
    (item,) = prepare([Example("Who?", answer)], processor)
    starts, text = token_starts(item, processor)
    assert len(starts) > 4 * DECODED
    assert starts == [len(processor.tokenizer.decode(item.answer_ids[:place])) for place in range(len(starts))]
    assert text.strip() == answer


def test_signs_tell_nothing_however_rare() -> None:
    (found,) = told([Example("Who?", "florist; ?!")])
    assert found == "florist"


def test_an_answer_that_only_repeats_the_question_counts_with_all_its_tokens() -> None:
    assert told([Example("Is it Lima?", "Lima")]) == ["Lima"]


def test_other_phrasings_about_one_subject_do_not_make_a_token_common() -> None:
    others = [word for word in WORDS if word != "florist"]

    def asked(subjects: list[str]) -> str:
        return told(
            [
                Example(f"Which word is number {row}?", f"It is florist or {word}.", metadata={"subject": subject})
                for row, (word, subject) in enumerate(zip(others, subjects, strict=True))
            ]
        )[0]

    assert "florist" in asked(["Anna"] * 5)
    assert "florist" not in asked([f"Anna {row}" for row in range(5)])


def begun(answer: str) -> list[str]:
    _, processor = FAMILIES["llava"]()
    (item,) = prepare([Example("Who?", answer)], processor)
    found = beginnings(item, range(len(item.answer_ids)), processor)
    return [processor.tokenizer.decode([item.answer_ids[place]]).strip() for place in found]


def test_words_count_by_their_first_three_letters_and_numbers_by_all_digits() -> None:
    assert begun("unforgettable 1985 Paris") == ["", "u", "n", "f", "", "1", "9", "8", "5", "Paris"]


def test_only_tokens_that_were_asked_for_count_however_a_word_begins() -> None:
    _, processor = FAMILIES["llava"]()
    (item,) = prepare([Example("Who?", "unforgettable")], processor)
    late = range(5, len(item.answer_ids))
    assert beginnings(item, late, processor) == tuple(late)  # all only spell on: none would be left
    assert beginnings(item, [1, *late], processor) == (1,)
