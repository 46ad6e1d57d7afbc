"""What ``kvw verify`` prints, and the table of edits that were tried."""

from __future__ import annotations

import pytest
from rich.console import Console
from tests.pages.records import selection

from kvw.records.run import KeptPart
from kvw.report.selection_table import print_selection
from kvw.report.verification import print_verification
from kvw.runs.verify import Check, State, Verification


@pytest.mark.parametrize(
    ("signature", "files", "verdict"),
    [
        ("holds", "holds", "What was checked holds."),
        ("holds", "not checked", "What was checked holds."),
        ("holds", "fails", "The evidence does not hold."),
        ("fails", "holds", "The evidence does not hold."),
        ("not checked", "holds", "The evidence is not verified: no signature was checked."),
    ],
)
def test_the_verdict_follows_from_the_checks(
    signature: State, files: State, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [Check(what="signature", state=signature, text="a key"), Check(what="run", state=files, text="[red]files")]
    print_verification(Verification(checks=checks))
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == verdict
    assert [line.split()[0] for line in lines] == [signature.split()[0], files.split()[0]]
    assert "[red]files" in lines[1]


def test_the_edit_that_was_taken_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(width=100, highlight=False)
    print_selection(console, selection())
    shown = capsys.readouterr().out
    assert "By the number of directions, at least 98% kept" in " ".join(shown.split())
    marked = [line for line in shown.splitlines() if line.lstrip().startswith(">")]
    assert len(marked) == 1
    assert marked[0].split()[:3] == [">", "2", "0/4"]
    assert "99.0%" in marked[0]
    print_selection(console, selection(unit=""))
    by_hand = " ".join(capsys.readouterr().out.split())
    assert "By the settings given (teacher-forced)" in by_hand
    assert "> as made" in by_hand


def test_below_all_of_it_stands_how_many_answers_are_still_the_first_choice(capsys: pytest.CaptureFixture[str]) -> None:
    part = selection()
    chosen = next(one for one in part.candidates if one.chosen)
    chosen.splits["held-out facts"] = chosen.splits["held-out facts"].model_copy(update={"answered": 3})
    print_selection(Console(width=100, highlight=False), part)
    last = [
        line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.split()[:1] in (["1.00"], ["0.00"])
    ]
    assert last == ["4/4", "1.00", "3/4"]  # no edit, one that was not asked about others, the one taken


def test_where_not_all_sources_fit_the_lowest_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    part = selection()
    shares = {f"held-out source {number}": KeptPart(value=1 - number / 100, error=0.0) for number in range(5)}
    chosen = next(one for one in part.candidates if one.chosen)
    chosen.kept.update(shares)
    shown = {}
    for width in (60, 200):
        print_selection(Console(width=width, highlight=False), part)
        shown[width] = capsys.readouterr().out
    assert "…" not in shown[60]
    assert "96.0%" in shown[60]
    assert "97.0%" not in shown[60]
    assert shown[60].count("source") == 1
    assert all(f"source {number}" in shown[200] for number in range(5))
    assert "lowest" not in shown[200]
