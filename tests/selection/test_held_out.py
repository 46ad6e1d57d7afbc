"""What is kept out of the solve."""

import pytest

from kvw.data import Example
from kvw.retain import NEIGHBOURS
from kvw.retain.texts import text_examples
from kvw.selection.held_out import split_forget, split_retain


def example(number: int, subject: str | None = None, answer: str = "yes", source: str | None = None) -> Example:
    metadata = {name: value for name, value in (("subject", subject), ("source", source)) if value is not None}
    return Example(f"Question {number}?", answer, identifier=f"e{number}", metadata=metadata)


def test_every_fifth_subject_is_held_out_with_all_its_examples() -> None:
    examples = [example(2 * number + view, f"person {number}") for number in range(11) for view in range(2)]
    solved, held = split_retain(examples)
    assert {one.subject for one in held} == {"person 4", "person 9"}
    assert len(held) == 4
    assert [one for one in examples if one in solved or one in held] == examples
    assert not {one.subject for one in solved} & {one.subject for one in held}


def test_each_source_has_its_share_held_out() -> None:
    examples = [
        *(example(number, f"person {number}") for number in range(7)),
        *(example(number, f"text {number}", source="text") for number in range(5)),
    ]
    _, held = split_retain(examples)
    assert [one.subject for one in held] == ["person 4", "text 2"]


@pytest.mark.parametrize("source", [*NEIGHBOURS, "text"])
def test_of_neighbours_and_plain_text_every_third_is_held_out(source: str) -> None:
    _, held = split_retain([example(number, f"name {number}", source=source) for number in range(7)])
    assert [one.subject for one in held] == ["name 2", "name 5"]


def test_examples_without_a_subject_stand_for_themselves() -> None:
    solved, held = split_retain([example(number) for number in range(10)])
    assert [one.identifier for one in held] == ["e4", "e9"]
    assert len(solved) == 8


def test_few_subjects_hold_none_out() -> None:
    solved, held = split_retain([example(number, f"person {number % 4}") for number in range(40)])
    assert (len(solved), held) == (40, [])


def test_every_third_view_of_a_fact_is_held_out() -> None:
    views = [example(number, "Ada", "1815") for number in range(7)]
    other = [example(10 + number, "Ada", "London") for number in range(2)]
    solved, held = split_forget([*views, *other])
    assert [one.identifier for one in held] == ["e2", "e5"]
    assert len(solved) == 7


def test_without_subjects_nothing_is_a_view_of_anything() -> None:
    examples = [example(number) for number in range(9)]
    assert split_forget(examples) == (examples, [])


def test_plain_text_is_held_out_with_and_without_a_prompt() -> None:
    _, held = split_retain(text_examples())
    without = sum(one.plain for one in held)
    assert (without, len(held) - without) == (35, 35)
