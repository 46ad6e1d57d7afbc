"""What is said of a request, and of many: numbers that can be worked out by hand."""

from __future__ import annotations

import inspect

import pytest

from kvw.data import Example
from kvw.errors import UserError
from kvw.evaluation.language import Speech
from kvw.evaluation.records import Reply, collect
from kvw.progress import SILENT, remembering
from kvw.proving.record import Answer, Item, Perplexity, ProvingRecord
from kvw.proving.summary import summary
from kvw.proving.table import markdown, read_records
from kvw.proving.verdict import ANNOUNCED, distance_to_gold, judge, kept
from kvw.runs import choosing
from kvw.runs.knowing import lost, tell_outcome
from kvw.runs.language import compared


def items(before: list[tuple[bool, float]], after: list[tuple[bool, float]] | None) -> list[Item]:
    """Each with whether the fact is chosen first, and the probability; what is not chosen is not given either."""

    def said(chosen: bool, probability: float) -> Answer:
        return Answer(text="", given=chosen, exact=False, chosen=chosen, probability=probability)

    return [
        Item(question="?", subject="s", fact="f", before=said(*one), after=said(*after[place]) if after else None)
        for place, one in enumerate(before)
    ]


KNOWN = [(True, 0.8), (True, 0.6), (False, 0.2)]


def record(number: int = 0, warnings: tuple[str, ...] = (), perplexity: float = 10.1, **after: list) -> ProvingRecord:
    splits = {
        "forget": items(KNOWN, after.get("forget", [(False, 0.0)] * 3)),
        "held_out": items(KNOWN, [(False, 0.0)] * 3),
        "retain": items(KNOWN, after.get("retain", KNOWN)),
        "unused": items(KNOWN, after.get("unused", KNOWN)),
        "floor": items([(False, 0.1)], None),
    }
    return ProvingRecord(
        job="", half="reporting", number=number, subjects=["s"], model="m", state="written", method="subspace",
        warnings=list(warnings), seconds={}, splits=splits, perplexity=Perplexity(before=10.0, after=perplexity),
    )  # fmt: skip


def refused(number: int = 0) -> ProvingRecord:
    splits = {name: items(KNOWN, None) for name in ("forget", "held_out", "retain", "unused", "floor")}
    return record(number).model_copy(
        update={"state": "refused", "message": "no", "splits": splits, "perplexity": Perplexity(before=10, after=None)}
    )


def test_what_is_kept_is_a_ratio_to_what_there_was():
    split = items(KNOWN, [(True, 0.4), (False, 0.4), (True, 0.0)])
    assert kept(split, "chosen") == 1.0  # one was lost and one was gained
    assert kept(split[:2], "given") == 0.5
    assert kept(split, "probability") == pytest.approx(0.8 / 1.6)
    assert kept(items([(False, 0.5)], [(True, 0.5)]), "chosen") == 1.0


def test_what_was_not_asked_aloud_has_no_cells_and_counts_nowhere():
    quiet = items(KNOWN, KNOWN)
    quiet = [
        one.model_copy(
            update={
                when: getattr(one, when).model_copy(update={"text": None, "given": None, "exact": None})
                for when in ("before", "after")
            }
        )
        for one in quiet
    ]
    assert kept(quiet, "given") == 1.0
    made = record()
    table = markdown([made.model_copy(update={"splits": {**made.splits, "retain": quiet}})])
    (row,) = (line for line in table.splitlines() if line.startswith("| retain |"))
    assert row.startswith("| retain | 3 |  |  |  | 0.667 | 0.667 | 1.000 |")
    # Of an earlier version, which asked all splits aloud, and of this one: the former alone says what was given.
    table = markdown([made, made.model_copy(update={"number": 1, "splits": {**made.splits, "retain": quiet}})])
    (row,) = (line for line in table.splitlines() if line.startswith("| retain |"))
    assert row.startswith("| retain | 6 | 0.667 | 0.667 | 1.000 | 0.667 |")


@pytest.mark.parametrize("way", ["given", "chosen"])
def test_a_forget_question_is_missed_whichever_way_it_brings_the_fact(way):
    met = record()
    first = met.splits["forget"][0]
    first = first.model_copy(update={"after": first.after.model_copy(update={way: True})})
    splits = {**met.splits, "forget": [first, *met.splits["forget"][1:]]}
    assert judge(met.model_copy(update={"splits": splits})).missed == ("forget",)


@pytest.mark.parametrize(
    ("missed", "change"),
    [
        ((), {}),
        (("forget",), {"forget": [(True, 0.0), (False, 0.0), (False, 0.0)]}),
        (("retain",), {"retain": [(True, 0.8), (False, 0.6), (False, 0.2)]}),
        (("retain",), {"retain": [(True, 0.77), (True, 0.59), (False, 0.2)]}),
        ((), {"retain": [(True, 0.79), (True, 0.59), (False, 0.2)]}),
        (("unused",), {"unused": [(True, 0.76), (True, 0.59), (False, 0.2)]}),
        ((), {"unused": [(True, 0.77), (True, 0.59), (False, 0.2)]}),
        (("plain text",), {"perplexity": 10.3}),
        ((), {"perplexity": 10.2}),
    ],
)
def test_each_criterion_is_judged(missed, change):
    assert judge(record(**change)).missed == missed


def test_subjects_that_the_run_named_itself_are_not_unused():
    lost = record(unused=[(True, 0.8), (False, 0.0), (False, 0.2)])
    assert judge(lost).missed == ("unused",)
    named = [item.model_copy(update={"named": place == 1}) for place, item in enumerate(lost.splits["unused"])]
    found = lost.model_copy(update={"splits": {**lost.splits, "unused": named}})
    assert judge(found).missed == ()
    table = markdown([found])
    assert "| unused | 2 | 0.500 | 0.500 | 1.000 |" in table
    assert "| named by the run | 1 | 1.000 | 0.000 | 0.000 |" in table
    assert "named by the run" not in markdown([lost])


def test_a_miss_is_announced_only_by_a_warning_of_it():
    lost = {"retain": [(False, 0.0)] * 3}
    assert judge(record(**lost)).announced == ()
    assert judge(record(warnings=("The template is missing.",), **lost)).announced == ()
    assert judge(record(warnings=("The retain set is lost, too: exact match.",), **lost)).announced == ("retain",)


def test_the_warnings_that_a_run_gives_are_known():
    def evaluation(reply: str):
        asked = {name: [Example("Who?", "Ada", metadata={})] for name in ("forget", "retain")}
        return collect(asked, [Reply(reply, 0.9 if reply == "Ada" else 0.0)] * 2)

    with remembering(SILENT) as told:
        tell_outcome("a larger --strength", evaluation("Ada"), evaluation("Ada"), told)
    assert any(ANNOUNCED["forget"].search(warning) for warning in told.warnings)
    assert any(ANNOUNCED["retain"].search(warning) for warning in lost(evaluation("Ada"), evaluation("Tom")))
    good, loop = ("It rained.",) * 12, ("and then " * 8,) * 12
    for before, after in (((20.0, good), (60.0, good)), ((20.0, good), (20.0, loop))):
        (warning,) = compared(Speech(*before), Speech(*after)).damage
        assert ANNOUNCED["plain text"].search(warning)
        assert ANNOUNCED["unused"].search(warning)
    said = " ".join(inspect.getsource(choosing).replace('"', "").split())  # the warnings of a chosen edit
    assert all(pattern.search(said) for pattern in ANNOUNCED.values())


@pytest.mark.parametrize("state", ["refused", "failed"])
def test_a_run_that_wrote_nothing_forgets_nothing_and_says_so(state):
    verdict = judge(refused().model_copy(update={"state": state}))
    assert (verdict.missed, verdict.announced) == (("forget",), ("forget",))


def test_the_tables_hold_means_and_counts():
    found = markdown([record(0), record(1, forget=[(True, 0.2), (False, 0.0), (False, 0.1)]), refused(2)])
    assert "3 requests of the reporting half, 2 written, 1 refused, 0 failed" in found
    assert "| forget | 6 | 0.667 | 0.167 [0.000, 0.333] | 0.250 [0.000, 0.500] | 0.667 | 0.167 [0.000" in found
    assert "| 0.533 | 0.533 [0.533, 0.533] | 1.000 [1.000, 1.000] |\n| unused" in found
    assert "| floor | 2 | 0.000 |  |  | 0.000 |  |  | 0.100 |  |  |" in found
    assert "Perplexity of plain text: 10.00 before, 1.010 [1.010, 1.010] times that after." in found
    assert "| no forget question brings the fact | 1 of 3 | 1 of 2 |" in found
    assert "| **all** | 1 of 3 | 1 of 2 |" in found
    assert "| 00 | s | 0.67 to 0.00 | 0.67 to 0.00 | 1.000, 1.000 | 1.000, 1.000 | 1.010 |  |" in found
    assert "| 01 | s | 0.67 to 0.33 | 0.67 to 0.00 | 1.000, 1.000 | 1.000, 1.000 | 1.010 | forget |" in found
    assert "| 02 | s | refused |  |  |  | 1.000 | forget (told) |" in found
    assert found.endswith("\nRefused: 02, no\n")


def beside_gold(gold: list[tuple[bool, float]], after: list[tuple[bool, float]]) -> ProvingRecord:
    made = record(forget=after)
    known = [
        item.model_copy(update={"gold": answer.before.model_copy(update={"rouge": 0.5})})
        for item, answer in zip(made.splits["forget"], items(gold, None), strict=True)
    ]
    known = [
        item.model_copy(
            update={when: getattr(item, when).model_copy(update={"rouge": 1.0}) for when in ("before", "after")}
        )
        for item in known
    ]
    return made.model_copy(update={"splits": {**made.splits, "forget": known, "held_out": known}})


@pytest.mark.parametrize("way", ["given", "exact", "chosen"])
def test_beside_gold_the_forgotten_may_be_as_good_as_gold_in_each_way(way):
    guess, nothing = [(True, 0.2), (False, 0.1), (False, 0.1)], [(False, 0.1)] * 3
    made = beside_gold(nothing, nothing)
    assert judge(made).missed == ()

    def brought(when: str) -> ProvingRecord:
        first, *others = made.splits["forget"]
        for one in when.split():
            first = first.model_copy(update={one: getattr(first, one).model_copy(update={way: True})})
        return made.model_copy(update={"splits": {**made.splits, "forget": [first, *others]}})

    assert judge(brought("after")).missed == ("forget",)
    assert judge(brought("after gold")).missed == ()
    assert judge(beside_gold(guess, nothing)).missed == ()
    assert judge(beside_gold(nothing, guess)).missed == ("forget",)


def test_the_distance_to_gold_is_of_single_questions():
    gold, after = [(False, 0.3), (False, 0.1), (True, 0.2)], [(False, 0.1), (True, 0.3), (False, 0.2)]
    made = beside_gold(gold, after)
    forget = made.splits["forget"]
    assert distance_to_gold(forget, "probability", "after") == pytest.approx(0.4 / 3)
    assert distance_to_gold(forget, "probability", "before") == pytest.approx(1.0 / 3)
    assert distance_to_gold(forget, "chosen", "after") == pytest.approx(2 / 3)
    assert distance_to_gold(record().splits["forget"], "probability", "after") is None
    table = markdown([made, made.model_copy(update={"number": 1})])
    ends = "[0.133, 0.133]"
    assert "| forget, probability | 0.533 [0.533, 0.533] | 0.200 [0.200, 0.200] | 0.200" in table
    assert f"| 0.333 [0.333, 0.333] | 0.133 {ends} |\n| forget, ROUGE-L recall | 1.000 " in table
    assert "| forget questions bring the fact at most 0.02 above gold | 2 of 2 |" in table
    assert "| perplexity | distance to gold | missed |" in table
    assert "| 1.010 | 0.333 to 0.133 |  |" in table
    assert "gold" not in markdown([record()])


def test_of_many_subjects_the_first_are_written_out():
    many = record().model_copy(update={"subjects": ["a", "b", "c", "d", "e"]})
    assert "| 00 | a, b, c and 2 more |" in markdown([many])


def test_a_single_record_has_no_interval():
    assert "| forget | 3 | 0.667 | 0.000 | 0.000 | 0.667 | 0.000 | 0.000 | 0.533 | 0.000 | 0.000 |" in markdown(
        [record()]
    )


def test_records_are_read_by_half_in_order(tmp_path):
    for one in (record(11), record(2)):
        one.write(tmp_path / "reporting" / f"{one.number:02d}")
    assert [one.number for one in read_records(tmp_path, "reporting")] == [2, 11]
    with pytest.raises(UserError, match="no records of this half"):
        read_records(tmp_path, "choosing")


@pytest.mark.parametrize("content", ["", "{}", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")])
def test_a_damaged_record_is_told(tmp_path, content):
    (tmp_path / "reporting" / "00").mkdir(parents=True)
    (tmp_path / "reporting" / "00" / "record.json").write_text(content)
    with pytest.raises(UserError, match="cannot be read") as error:
        read_records(tmp_path, "reporting")
    assert "run the request again" in error.value.do


def test_several_folders_are_columns_beside_one_for_all_requests():
    told = "2 of 3 forget questions are still answered"
    first = record(0)
    first.splits["unused"] += [one.model_copy(update={"named": True}) for one in items([(True, 0.9)], [(False, 0.0)])]
    shown = summary({"world": [first, record(1, (told,), forget=KNOWN)], "people": [refused(2)]})
    header, _, *lines = (line.strip("| ").split(" | ") for line in shown.splitlines())
    rows = {name: cells for name, *cells in lines}
    assert header == ["world", "people", "all"]
    assert rows["requests"] == ["2, 2 with an edit", "1, 0 with an edit", "3, 2 with an edit"]
    assert rows["forget chosen, after"][0].startswith("0.333 [")  # none of three, and two of three
    assert rows["forget chosen, after"] == [rows["forget chosen, after"][2], "", rows["forget chosen, after"][2]]
    assert rows["retain chosen, kept"][0].startswith("1.000")
    assert rows["unused chosen, kept"][0].startswith("1.000")  # what the run has named itself is not unused
    assert rows["perplexity"][2].startswith("1.010")
    # The exact intervals of 1 of 2, 0 of 1 and 1 of 3.
    assert rows["all criteria met"] == ["1 of 2 [0.01, 0.99]", "0 of 1 [0.00, 0.97]", "1 of 3 [0.01, 0.91]"]
    assert rows["misses that the run announced"] == ["1 of 1", "1 of 1", "2 of 2"]
