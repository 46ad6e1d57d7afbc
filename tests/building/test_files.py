"""Where the files of a request can be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvw.building.files import check_place, write_rows
from kvw.building.questions import Row, Rows
from kvw.errors import UserError

ROWS = Rows([Row("Who?", "Jody Vance", "Jody Vance")])


@pytest.mark.parametrize("below", ["file/made", "file/deep/made", f"{'x' * 300}/made"])
def test_a_place_where_no_folder_can_be_is_refused_before_and_while_writing(tmp_path, below):
    (tmp_path / "file").write_text("")
    for refused in (check_place, lambda out: write_rows(out, ROWS)):
        with pytest.raises(UserError, match="made could not be written") as error:
            refused(tmp_path / below)
        assert error.value.do == "name another place that you may write to"


def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    for out in (tmp_path, tmp_path / "made"):
        with pytest.raises(UserError, match=r"could not be written[\s\S]*Permission denied"):
            check_place(out)


def test_what_is_found_out_only_by_writing_is_a_message(tmp_path, monkeypatch):
    def refuse(path, mode=0):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(UserError, match=r"made could not be written[\s\S]*Permission denied"):
        write_rows(tmp_path / "made", ROWS)
