"""The page of a run shows its record, and examples only where that is wanted."""

from __future__ import annotations

from typing import Any

from tests.pages.records import record, selection, split
from tests.pages.test_frame import EVIL, balanced

from kvw.pages.run_page import run_page
from kvw.records.run import LanguagePart, RunRecord
from kvw.records.samples import Reply, Row

PHOTO = "data:image/jpeg;base64,AAAA"
SPLITS = {
    "forget": split(36, 1, part="used"),
    "forget_by_name": split(36, 2, pictures=0),
    "others": split(36, 35, about="others"),
}


def row(name: str, question: str, before: str, after: str, *, right: bool = False, picture: str = PHOTO) -> Row:
    replies = {
        "original": Reply(before, "correct", True, 0.9),
        "unlearned": Reply(after, "correct" if right else "wrong", right, 0.8 if right else 0.1),
    }
    return Row(name, question, before, replies, picture)


ROWS = [
    row("forget", "Who is this?", "Ann Lee", "Bo Day"),
    row("forget", "What does she do?", "smith", "smith", right=True),
    row("others", "Who is that?", "Cy Fox", "Cy Fox", right=True),
]


def of_model(name: str) -> dict[str, Any]:
    return {"model": record({}).model.model_copy(update={"name": name})}


def full(**changed: Any) -> RunRecord:
    language = LanguagePart(perplexity=None, broken=None)
    return record(SPLITS, selection=selection(), language=language, warnings=["Others pay: 90%."], **changed)


def test_everything_that_is_in_the_record_is_on_the_page() -> None:
    text = run_page(full())
    for part in (
        *("Forgot 35 of 36 questions.", "some/model", "Others pay: 90%.", "about the forgotten", "about others"),
        *("used", "held out", "Probability of forget answers", "Kept of what must stay", "directions weakened"),
        *("plausible but wrong", "Output projections of attention", "1.5 min", "samples.jsonl", "transformers"),
        "Whether it still writes ordinary language could not be looked at.",
    ):
        assert part in text, part
    assert balanced(text)
    assert len(text) < 100_000


def test_examples_are_shown_where_that_is_wanted_or_where_people_are_made_up() -> None:
    hidden = run_page(full(), ROWS)
    assert "Ann Lee" not in hidden
    assert PHOTO not in hidden
    assert "It shows no question and no answer." in hidden
    shown = run_page(full(), ROWS, show_examples=True)
    for part in ("Ann Lee", "Bo Day", PHOTO, "what changed most", "still answered", "answered as before"):
        assert part in shown, part
    assert "Do not publish it with the model." in shown
    assert "Ann Lee" in run_page(full(**of_model("toy:vanilla")), ROWS)


def test_nothing_in_a_question_ends_up_as_markup() -> None:
    rows = [row("forget", EVIL, EVIL, EVIL, picture=f'x" onerror="{EVIL}')]
    text = run_page(full(**of_model(EVIL)), rows, show_examples=True)
    assert "<b onload" not in text
    assert "onerror" not in text  # only pictures are shown as pictures
    assert "&lt;/script&gt;" in text
    assert balanced(text)


def test_a_record_with_as_little_as_there_can_be() -> None:
    forget = SPLITS["forget"].model_copy(update={"seen": None})
    bare = full().model_copy(update={"splits": {"forget": forget}, "selection": None, "layers": [], "warnings": []})
    text = run_page(bare)
    assert balanced(text)
    for absent in ("How strong", "What judged", "Where the edit acts", "Warnings"):
        assert absent not in text
    assert "not known" in text


def test_a_strength_that_was_fixed_by_hand_has_no_curve() -> None:
    text = run_page(full().model_copy(update={"selection": selection(unit="")}))
    assert "What judged the edit" in text
    assert "How strong the edit is" not in text


def test_parts_of_the_model_that_were_tried_have_a_curve_each() -> None:
    found = selection()
    halves = [one.model_copy(update={"where": "layers 0:14"}) for one in found.candidates[:1]] + found.candidates[1:]
    text = run_page(full().model_copy(update={"selection": found.model_copy(update={"candidates": halves})}))
    assert text.count("<figcaption>Probability of forget answers") == 2
    assert "Probability of forget answers, layers 0:14" in text
