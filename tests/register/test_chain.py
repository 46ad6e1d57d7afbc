"""The chain: killed, written by two at once, changed, cut."""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from kvw.errors import UserError
from kvw.register.chain import FIRST, Broken, append, begin, examine, grown_from, packed, read

ROOT = Path(__file__).parents[2]


@pytest.fixture
def register(tmp_path):
    """Twelve entries."""
    path = tmp_path / "register.sqlite"
    assert begin(path)
    for number in range(12):
        append(path, lambda entries, number=number: [{"kind": "test", "who": f"case-{number}", "of": len(entries)}])
    return path


def writers(path, *arguments):
    found = subprocess.run(
        [sys.executable, "-m", "tests.register.writers", path, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def statements(path, *lines):
    """Change the file behind kvw's back."""
    with closing(sqlite3.connect(path)) as connection:
        for line in lines:
            connection.execute(*line) if isinstance(line, tuple) else connection.execute(line)
        connection.commit()


DROPPED = ("DROP TRIGGER no_update", "DROP TRIGGER no_delete")


def test_entries_come_back_as_they_were_written_in_a_chain(register):
    entries = read(register)
    assert [entry.fields["who"] for entry in entries] == [f"case-{number}" for number in range(12)]
    assert [entry.fields["of"] for entry in entries] == list(range(12))
    previous = FIRST
    for number, entry in enumerate(entries, 1):
        assert (entry.number, entry.fields["number"], entry.fields["previous"]) == (number, number, previous)
        assert hashlib.sha256(packed(entry.fields).encode()).hexdigest() == entry.digest
        previous = entry.digest
    assert register.stat().st_mode & 0o777 == 0o600
    assert examine(register)[1] == []
    assert not begin(register)


def test_several_entries_are_appended_or_none(register):
    append(register, lambda _: [{"kind": "a"}, {"kind": "b"}])
    before = register.read_bytes()

    def failing(entries):
        assert len(entries) == 14
        raise UserError("not now")

    with pytest.raises(UserError, match="not now"):
        append(register, failing)
    with pytest.raises(TypeError):
        append(register, lambda _: [{"kind": "c"}, {"kind": object()}])
    assert len(read(register)) == 14
    assert register.read_bytes() == before


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_a_kill_at_any_moment_leaves_a_whole_chain_with_all_that_was_told(tmp_path, kills):
    found = json.loads(writers(tmp_path / "register.sqlite", "kill", str(kills)))
    print(found)
    assert found["killed"] == kills
    assert found["entries"] >= found["told"]


@pytest.mark.thorough
def test_two_writers_make_one_chain(tmp_path):
    path = tmp_path / "register.sqlite"
    heads = writers(path, "together", "60").split()
    entries = read(path)
    assert sorted(heads) == sorted(entry.head for entry in entries)
    assert [entry.fields["of"] for entry in entries] == list(range(120))
    assert sorted(entry.fields["mark"] for entry in entries) == [0] * 60 + [1] * 60


def test_a_writer_waits_no_longer_than_it_is_told(register, monkeypatch):
    monkeypatch.setattr("kvw.register.chain.SECONDS_TO_WAIT", 0.01)
    with closing(sqlite3.connect(register, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match="at this moment") as told:
            append(register, lambda _: [{"kind": "x"}])
    assert not isinstance(told.value, Broken)


@pytest.mark.parametrize("count", [150, pytest.param(4000, marks=pytest.mark.slow)])
def test_a_changed_byte_is_found_or_changes_nothing(register, count):
    """SQLite's pages have room that means nothing: either it is told, or the entries are what was written."""
    content, entries = register.read_bytes(), read(register)
    generator, found = random.Random(0), 0
    for _ in range(count):
        place = generator.randrange(len(content))
        changed = bytes([content[place] ^ generator.randrange(1, 256)])
        register.write_bytes(content[:place] + changed + content[place + 1 :])
        try:
            there, wrong = examine(register)
        except UserError as error:  # SQLite takes it for a file of another kind, which it cannot open
            there, wrong = [], [str(error)]
        found += bool(wrong)
        assert wrong or there == entries, place
    assert found > count / 20


def test_a_changed_byte_of_any_entry_is_found(register):
    content, generator = register.read_bytes(), random.Random(1)
    for entry in read(register):
        text = packed(entry.fields).encode()
        assert content.count(text) == 1
        place = content.index(text) + generator.randrange(len(text) + 64)  # its digest comes behind it
        register.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        wrong = examine(register)[1]
        assert wrong, place
        with pytest.raises(Broken):
            append(register, lambda _: [{"kind": "x"}])
    register.write_bytes(content)
    assert examine(register)[1] == []


def test_sqlite_refuses_to_change_and_to_remove(register):
    for line in ("UPDATE entries SET digest='x'", "DELETE FROM entries"):
        with pytest.raises(sqlite3.IntegrityError, match="append only"):
            statements(register, line)


def rewritten(number, entries):
    """Statements that make another list from an entry on, consistent in itself."""
    previous = entries[number - 2].digest if number > 1 else FIRST
    for entry in entries[number - 1 :]:
        content = packed({**entry.fields, "who": "case-x", "previous": previous})
        previous = hashlib.sha256(content.encode()).hexdigest()
        yield "UPDATE entries SET content=?, digest=? WHERE number=?", (content, previous, entry.number)


PUT_BACK = (
    "CREATE TRIGGER no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END",
    "CREATE TRIGGER no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END",
)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), "tables were changed"),
        (("DELETE FROM entries WHERE number=5", *PUT_BACK), "entry 5 is missing"),
        (("DELETE FROM entries WHERE number=1", *PUT_BACK), "entry 1 is missing"),
        (("DELETE FROM entries WHERE number=12", *PUT_BACK), "12 entries were written, and 11 are there"),
        (("UPDATE entries SET number=20 WHERE number=12", *PUT_BACK), "entry 12 is missing"),
        (("UPDATE entries SET content=replace(content, 'case-3', 'case-4')", *PUT_BACK), "entry 4 was changed"),
        (("UPDATE entries SET digest=upper(digest) WHERE number=3", *PUT_BACK), "entry 3 was changed"),
        (("UPDATE entries SET content=content || ' ' WHERE number=3", *PUT_BACK), "entry 3 cannot be read"),
        (("UPDATE entries SET content=x'ff' WHERE number=3", *PUT_BACK), "entry 3 cannot be read"),
        (("CREATE TABLE more (x)", *PUT_BACK), "tables were changed"),
        (("PRAGMA user_version=7", *PUT_BACK), "no register of this version"),
        (("DROP TABLE entries",), "no register of this version"),
    ],
)
def test_what_was_done_to_the_list_is_said(register, lines, words):
    statements(register, *DROPPED, *lines)
    assert any(words in said for said in examine(register)[1]), examine(register)[1]
    with pytest.raises(Broken):
        read(register)


def test_what_follows_a_rewritten_entry_gives_it_away(register):
    (line, *_) = rewritten(4, read(register))
    statements(register, *DROPPED, line, *PUT_BACK)
    assert examine(register)[1] == ["entry 5 does not follow the one before"]


def test_a_cut_tail_and_a_new_chain_are_found_by_an_earlier_head_alone(register):
    """What the register cannot tell by itself, and what can."""
    entries = read(register)
    early, last = entries[5].head, entries[-1].head
    assert grown_from(entries, early) == grown_from(entries, last) == []
    content = register.read_bytes()
    counter = "UPDATE sqlite_sequence SET seq=10"
    statements(register, *DROPPED, "DELETE FROM entries WHERE number>10", counter, *PUT_BACK)
    left, wrong = examine(register)
    assert (len(left), wrong) == (10, [])
    assert grown_from(left, early) == []
    assert "cut off" in grown_from(left, last)[0]
    register.write_bytes(content)
    statements(register, *DROPPED, *rewritten(3, entries), *PUT_BACK)
    other, wrong = examine(register)
    assert wrong == []
    assert "written anew" in grown_from(other, early)[0]
    assert grown_from(other, entries[1].head) == []
    for head in ("", "12", "0:x", "x:y", "-1:" + "0" * 64):
        with pytest.raises(UserError, match="no head"):
            grown_from(entries, head)


def test_other_files_are_no_registers(tmp_path):
    text, other = tmp_path / "text", tmp_path / "other.sqlite"
    text.write_text("hello " * 500)
    statements(other, "CREATE TABLE entries (x)", "INSERT INTO entries VALUES (1)")
    for path in (text, other):
        before = path.read_bytes()
        assert examine(path)[1]
        with pytest.raises(Broken):
            append(path, lambda _: [{"kind": "x"}])
        assert path.read_bytes() == before
    with pytest.raises(UserError, match="There is no register"):
        read(tmp_path / "gone")
    with pytest.raises(UserError, match="There is no register"):
        append(tmp_path / "gone", lambda _: [])
    (tmp_path / "empty").write_bytes(b"")
    assert read(tmp_path / "empty") == []
