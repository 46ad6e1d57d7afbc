"""Tables and JSON in files that are called texts."""

from __future__ import annotations

import json

import pytest
from tests.data.user_inputs import PAGE

from kvw.data import read_examples
from kvw.errors import UserError

ROW = json.dumps({"question": "Who?", "answer": "Ada"})
TABLES = {
    "tabs": ("question\tanswer\timage\nWho?\tAda\t\n", "d.tsv"),
    "semicolons": ("\n Frage ; Antwort \nWer?;Ada\n", "d.csv"),
    "named": ("sep=;\nquestion;answer\nWho?;Ada\n", "d.csv"),
    "header": ("question,answer", "d.csv"),
    "ragged": ("question,answer\nWho, what?,Ada\n", "d.csv"),
}
OBJECTS = {"line": ROW, "lines": f"\n{ROW}\n\n{ROW}\n{ROW}\n{ROW}", "list": f"[\n  {ROW},\n  {ROW}\n]\n"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_no_text(tmp_path, name, encoding):
    text, right = TABLES[name]
    (tmp_path / "d.txt").write_text(text, encoding)
    with pytest.raises(UserError, match=rf"d\.txt: the text looks like a table[\s\S]*do: rename it to {right};"):
        read_examples(tmp_path / "d.txt")
    if name not in ("header", "semicolons", "ragged"):
        assert len(read_examples((tmp_path / "d.txt").rename(tmp_path / right))) == 1


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("ending", ["txt", "md"])
def test_json_is_no_text(tmp_path, name, ending):
    path = tmp_path / f"d.{ending}"
    path.write_text(OBJECTS[name])
    with pytest.raises(UserError, match=r"the text looks like JSON[\s\S]*do: rename it to d\.jsonl;"):
        read_examples(path)
    assert read_examples(path.rename(tmp_path / "d.jsonl"))


@pytest.mark.parametrize(
    "text",
    [
        PAGE,
        f"These rows are an example:\n{ROW}\n{ROW}\n",
        f"{ROW}\nis how a row is written.\n",
        "| question | answer |\n|---|---|\n| Who? | Ada |\n",
        "question, then answer, and truth\nwere all she wrote about.\n",
        "question\tsubject\nWho?\tAda\n",
        '[{"not": JSON}]',
        "[1, 2]\n[3, 4]\n",
        '{"in": 1\n"several lines": 2}\n',
    ],
)
def test_a_text_stays_one(tmp_path, text):
    (tmp_path / "d.txt").write_text(text)
    (example,) = read_examples(tmp_path / "d.txt")
    assert example.question + example.answer == text.strip()
