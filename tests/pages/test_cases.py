"""Which questions a report shows with their answers."""

from __future__ import annotations

from tests.pages.records import record, split

from kvw.pages.cases import CHANGED, Case, cases
from kvw.records.samples import Reply, Row

SPLITS = {"forget": split(36, 0), "others": split(36, 30, about="others")}


def row(name: str, before: float, after: float, *, of: str = "forget", right: tuple[bool, bool] = (True, False)) -> Row:
    replies = {
        model: Reply("reply", "", answered, probability)
        for model, answered, probability in zip(("original", "unlearned"), right, (before, after), strict=True)
    }
    return Row(of, f"question {name}", f"answer {name}", replies)


def shown(rows: list[Row]) -> dict[str, list[str]]:
    return {case.title.partition(": ")[2]: [one.reference for one in case.rows] for case in cases(record(SPLITS), rows)}


def test_what_changed_most_comes_first_and_what_is_still_answered_has_a_place_of_its_own() -> None:
    rows = [row("a", 0.9, 0.5), row("b", 0.9, 0.1), row("c", 0.9, 0.8, right=(True, True))]
    assert shown(rows) == {"what changed most": ["answer b", "answer a"], "still answered": ["answer c"]}


def test_others_are_shown_as_before_and_where_they_lost_most() -> None:
    rows = [
        row("a", 0.9, 0.9, of="others", right=(True, True)),
        row("b", 0.9, 0.2, of="others"),
        row("c", 0.9, 0.7, of="others"),
        row("d", 0.9, 0.1, of="somewhere else"),
    ]
    assert cases(record(SPLITS), rows) == [
        Case("About others: answered as before", [rows[0]]),
        Case("About others: what changed most", [rows[1], rows[2]]),
    ]


def test_one_answer_is_shown_once_as_long_as_there_are_others() -> None:
    many = [row("same", 0.9, 0.1 + number / 100) for number in range(10)]
    other = row("other", 0.9, 0.8)
    first, *rest = shown([*many, other])["what changed most"]
    assert first == "answer same"
    assert "answer other" in rest[:1]
    assert len(rest) < CHANGED


def test_where_no_probability_is_known_the_answer_decides() -> None:
    def unknown(name: str, right: tuple[bool, bool]) -> Row:
        replies = {
            model: Reply("r", "", one, None) for model, one in zip(("original", "unlearned"), right, strict=True)
        }
        return Row("forget", f"question {name}", f"answer {name}", replies)

    assert shown([unknown("kept", (True, True)), unknown("gone", (True, False))]) == {
        "what changed most": ["answer gone"],
        "still answered": ["answer kept"],
    }
