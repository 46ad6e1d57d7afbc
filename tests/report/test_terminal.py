"""Tables on a terminal."""

from __future__ import annotations

import pytest

from kvw.report.terminal import console, number_table, print_warning


def test_numbers_stand_at_the_right_and_names_at_the_left() -> None:
    table = number_table("split", "model", "n", left=["model"], title="[b]scores")
    assert [column.justify for column in table.columns] == ["left", "left", "right"]
    assert str(table.title) == "[b]scores"  # as it is: names are no markup


def test_texts_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_warning(console(), "of [bold]model[/bold] :smile:")
    assert capsys.readouterr().out == "warning of [bold]model[/bold] :smile:\n"
