"""A list that only grows, in one SQLite file: each entry carries the SHA-256 of the one before.

SQLite makes an append whole or absent, whenever the process is killed, and lets one process append at a time. The chain
shows changes to what is there. What was cut off at the end shows only to those who know an earlier head.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kvw.errors import UserError
from kvw.files import PRIVATE_FILE, explained

APPLICATION, SCHEMA_VERSION = 0x6B767772, 1
"""SQLite's application id of these files ("kvwr"), and the version of their tables."""
FIRST = "0" * 64
"""Stands in place of the digest before the first entry."""
SECONDS_TO_WAIT = 30.0
"""How long to wait for another process that is appending."""
SCHEMA = {
    "entries": "CREATE TABLE entries "
    "(number INTEGER PRIMARY KEY AUTOINCREMENT, content TEXT NOT NULL, digest TEXT NOT NULL)",
    "no_update": "CREATE TRIGGER no_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END",
    "no_delete": "CREATE TRIGGER no_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END",
}
PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
"""Errors that do not come from what the file holds."""
COUNTER = "sqlite_sequence"
"""SQLite's own table of the largest number that was ever given."""


@dataclass(frozen=True)
class Entry:
    """One entry.

    Args:
        number: From 1.
        digest: SHA-256 of its content.
        fields: What it says; ``kind``, ``at`` (UTC, ISO 8601) and ``previous`` (the digest before) among it.
    """

    number: int
    digest: str
    fields: dict[str, Any]

    @property
    def head(self) -> str:
        """Digest of the list up to here."""
        return f"{self.number}:{self.digest}"


class Broken(UserError):
    """The register is not what was written."""


def append(path: Path, make: Callable[[list[Entry]], Sequence[Mapping[str, Any]]]) -> list[Entry]:
    """Append entries, all or none, while no other process does.

    Args:
        path: The file.
        make: Given all entries so far, says what each new one is to say, ``kind`` among it; or raises.

    Returns:
        The new entries.

    Raises:
        Broken: The list is not whole, so nothing is put behind it.
        UserError: There is no register, it cannot be written, or another process does not finish.
    """
    if not path.is_file():
        raise _absent(path)
    with _opened(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        if _is_new(connection):
            for statement in (*SCHEMA.values(), f"PRAGMA application_id={APPLICATION}"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        entries, wrong = _read(connection)
        if wrong:
            raise _broken(path, wrong)
        found, at = [], datetime.now(UTC).isoformat(timespec="seconds")
        previous = entries[-1].digest if entries else FIRST
        for number, said in enumerate(make(entries), len(entries) + 1):
            fields = {**said, "number": number, "at": at, "previous": previous}
            content = packed(fields)
            previous = _digest(content)
            connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (number, content, previous))
            found.append(Entry(number, previous, fields))
        connection.execute("COMMIT")
    return found


def begin(path: Path) -> bool:
    """Make an empty file for a register, that only its owner can read (0600); returns whether there was none."""
    with explained(path):
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE))
        except FileExistsError:
            return False
        return True


def read(path: Path) -> list[Entry]:
    """All entries.

    Raises:
        Broken: The list is not whole.
        UserError: There is no register.
    """
    entries, wrong = examine(path)
    if wrong:
        raise _broken(path, wrong)
    return entries


def examine(path: Path) -> tuple[list[Entry], list[str]]:
    """The entries that can be read, and what is wrong with the list in words; nothing if it is whole.

    Raises:
        UserError: There is no register.
    """
    if not path.is_file():
        raise _absent(path)
    try:
        with _opened(path) as connection:
            connection.execute("BEGIN")
            return _read(connection)
    except Broken as error:
        return [], [error.found]


def grown_from(entries: Sequence[Entry], head: str) -> list[str]:
    """What speaks against it that the list has grown from an earlier head; nothing if it has."""
    number, colon, digest = head.partition(":")
    if not (colon and number.isdecimal() and int(number) > 0):
        raise UserError("That is no head of a register.", found=head, do="give it as it was printed, NUMBER:DIGEST")
    if int(number) > len(entries):
        return [f"there are {len(entries)} entries, and there were {number}: the end was cut off"]
    if entries[int(number) - 1].digest != digest:
        return [f"entry {number} is not the one of that head: the register was written anew"]
    return []


def packed(fields: Mapping[str, Any]) -> str:
    """The text of an entry; the same for the same fields."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"))


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that writes through to the disk; what was begun and not committed is taken back."""
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=SECONDS_TO_WAIT, isolation_level=None)) as connection:
            connection.text_factory = bytes  # so that bytes that are no text are found, and do not stop the search
            connection.execute("PRAGMA synchronous=FULL")
            yield connection
    except UnicodeDecodeError as error:  # in a message of SQLite that quotes the file
        raise _broken(path, ["SQLite finds bytes in its tables that are no text"]) from error
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in PASSING:
            raise _broken(path, [str(error)]) from error
        do = "wait until other commands are done, and check the disk and who may write there"
        raise UserError(f"The register {path} cannot be used at this moment.", found=str(error), do=do) from error


def _read(connection: sqlite3.Connection) -> tuple[list[Entry], list[str]]:
    """The entries, and what is wrong."""
    if _is_new(connection):  # or a process was killed while it wrote the first entry
        return [], []
    wrong = _wrong_frame(connection)
    if any(said.startswith("it is no register") for said in wrong):
        return [], wrong
    entries, previous = [], FIRST
    rows = connection.execute("SELECT number, content, digest FROM entries ORDER BY number").fetchall()
    for place, (number, content, digest) in enumerate(rows, 1):
        try:
            entry = _entry(number, content, digest)
        except (ValueError, AttributeError):  # no text, no JSON, or not as kvw writes it
            wrong.append(f"entry {place} cannot be read")
            continue
        if entry.number != place or entry.fields.get("number") != place:
            wrong.append(f"entry {place} is missing, or out of its place")
        elif entry.fields.get("previous") != previous:
            wrong.append(f"entry {place} does not follow the one before")
        elif entry.digest != _digest(content.decode()):
            wrong.append(f"entry {place} was changed")
        entries.append(entry)
        previous = entry.digest
    counted = connection.execute(f"SELECT seq FROM {COUNTER} WHERE name='entries'").fetchall()
    largest = counted[0][0] if counted else 0
    if largest != len(rows):
        wrong.append(f"{largest} entries were written, and {len(rows)} are there")
    return entries, wrong


def _is_new(connection: sqlite3.Connection) -> bool:
    """Whether nothing was ever written."""
    numbers = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
    return numbers == [0, 0] and not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]


def _wrong_frame(connection: sqlite3.Connection) -> list[str]:
    """What is wrong with the file but for the entries."""
    names = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall())
    found = {_text(name): _text(sql) for name, sql in names.items()}
    found.pop(COUNTER, None)
    kind = (
        connection.execute("PRAGMA application_id").fetchone()[0],
        connection.execute("PRAGMA user_version").fetchone()[0],
    )
    if kind != (APPLICATION, SCHEMA_VERSION) or "entries" not in found:
        return ["it is no register of this version, or its head was changed"]
    wrong = [] if found == SCHEMA else ["its tables were changed"]
    told = [_text(row[0]) for row in connection.execute("PRAGMA integrity_check(5)").fetchall()]
    return wrong + [f"SQLite finds: {said}" for said in told if said != "ok"]


def _entry(number: Any, content: Any, digest: Any) -> Entry:
    fields = json.loads(content.decode())
    if not isinstance(fields, dict) or packed(fields).encode() != content:
        raise ValueError("another form")
    return Entry(number, digest.decode(), fields)


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def _text(value: Any) -> str:
    return value.decode("utf-8", errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _absent(path: Path) -> UserError:
    return UserError(f"There is no register {path}.", do="begin one with: kvw register add, or name it with --file")


def _broken(path: Path, wrong: Sequence[str]) -> Broken:
    return Broken(
        f"{path} is no register, or was changed since it was written.",
        found="; ".join(wrong[:5]) + ("; ..." if len(wrong) > 5 else ""),
        do="look with: kvw register verify; and go on with a copy that is whole",
    )
