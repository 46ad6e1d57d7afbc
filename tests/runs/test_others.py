"""Questions about others that are asked freely."""

from types import SimpleNamespace

import pytest

from kvw.data import Example
from kvw.edits.low_rank import LowRankEdit
from kvw.errors import Damaging
from kvw.progress import SILENT, remembering
from kvw.proving.verdict import ANNOUNCED
from kvw.records.run import FreelyPart
from kvw.runs import others
from kvw.runs.others import MOST, ask_others, tell_of_others

CAPITALS = {"Peru": "Lima", "Kenya": "Nairobi", "Cuba": "Havana", "Japan": "Tokyo"}


def asked(*countries: str) -> list[Example]:
    return [Example(f"What is the capital of {one}?", f"It is {CAPITALS[one]}.") for one in countries]


@pytest.fixture
def attached(monkeypatch):
    """An edit whose model refuses to speak of Kenya; the original does not know Cuba."""
    state = SimpleNamespace(on=False, asked=[])

    class FakeEdit(LowRankEdit):
        def attach(self, model):
            return self

        def __enter__(self):
            state.on = True

        def __exit__(self, *_):
            state.on = False

    def said(loaded, examples, longest):
        state.asked.append([one.answer for one in examples])
        unknown = "Kenya" if state.on else "Cuba"
        return ["I cannot say." if unknown in one.question else f"Oh, {one.answer.upper()}" for one in examples]

    monkeypatch.setattr(others, "replies", said)
    return FakeEdit({}), state


def test_only_what_the_original_answers_is_asked_of_the_edited_model(attached):
    edit, state = attached
    material = SimpleNamespace(
        judged={"held-out neighbours": asked("Peru", "Kenya"), "held-out facts": asked("Cuba", "Japan"), "forget": []}
    )
    assert ask_others(SimpleNamespace(model=None), material, edit) == FreelyPart(questions=3, answered=2)
    assert list(map(len, state.asked)) == [4, 3]
    assert not state.on


def test_no_more_than_some_are_asked_and_of_each_source_as_many(attached):
    edit, state = attached
    many = [Example(f"Where lives {number}?", f"In {number} Lima.") for number in range(MOST)]
    few = [Example(f"Where works {number}?", f"In {number} Rome.") for number in range(MOST)]
    ask_others(
        SimpleNamespace(model=None), SimpleNamespace(judged={"held-out facts": many, "held-out retain": few}), edit
    )
    assert state.asked[0] == [one.answer for one in [*few[: MOST // 2], *many[: MOST // 2]]]


@pytest.mark.parametrize("countries", [(), ("Cuba",)])
def test_without_anything_that_the_original_answers_nothing_is_said(attached, countries):
    edit, _ = attached
    material = SimpleNamespace(judged={"held-out facts": asked(*countries)})
    assert ask_others(SimpleNamespace(model=None), material, edit) is None
    tell_of_others(None, SILENT, write_damaged=False)


def test_few_that_are_lost_are_chance_more_are_warned_of_and_most_are_a_wreck():
    def told(answered: int, *, write_damaged: bool = False) -> list[str]:
        with remembering(SILENT) as reporter:
            tell_of_others(FreelyPart(questions=20, answered=answered), reporter, write_damaged=write_damaged)
        return reporter.warnings

    assert told(16) == []
    (warning,) = told(15)
    assert warning.startswith("Others pay: 15 of 20 questions about others still get their answer when asked freely")
    assert ANNOUNCED["retain"].search(warning)
    assert len(told(10)) == 1
    with pytest.raises(Damaging, match="9 of 20 questions"):
        told(9)
    assert len(told(9, write_damaged=True)) == 1
