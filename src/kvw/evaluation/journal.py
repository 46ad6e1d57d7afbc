"""Answers and scores kept on disk as they come, so that an interrupted evaluation goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from pydantic import TypeAdapter, ValidationError

from kvw.cache import cache_directory
from kvw.checked import tell_damaged
from kvw.data import Prepared
from kvw.errors import UserError
from kvw.evaluation.running import Key, run_grouped
from kvw.files import PRIVATE_FILE, make_folders, write_bytes
from kvw.measuring.fingerprint import digest

logger = logging.getLogger(__name__)

LINES_BETWEEN_SYNCS = 64
"""A killed process loses nothing that was written; only a machine that loses power loses this many lines at most."""

ANSWERS, SCORES = "answer", "scores"
"""The kinds of results."""

Value = TypeVar("Value")


class Journal:
    """A JSON Lines file, one line for each result, written as soon as there is one.

    Unlike all other files it grows in place: a line that a crash has cut off, or that is damaged, is skipped when the
    file is read, with a warning, and what it held is worked out again. Each line begins with the SHA-256 of its rest;
    lines that are not right are removed.

    Attributes:
        path: The file; it appears with the first result. None if nothing is kept.

    Args:
        fingerprint: Everything that the results depend on, another fingerprint is another file in the cache directory.
            None keeps nothing, unless there is a path.
        path: Another place than the cache directory, for results that all belong together.
    """

    def __init__(self, fingerprint: Mapping[str, str] | None, path: Path | None = None) -> None:
        if path is None and fingerprint:
            path = cache_directory() / "answers" / f"{digest(fingerprint)}.jsonl"
        self.path = path
        self._known = _read(self.path) if self.path and self.path.is_file() else {}
        self._file: FileIO | None = None
        self._lines = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with self._tolerant():
                os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def count(self, kind: str) -> int:
        """How many results of a kind there are."""
        return sum(found == kind for found, _ in self._known)

    def kept(self, kind: str, type_: type[Value]) -> Kept[Value]:
        """The results of one kind.

        Args:
            kind: Its name in the file.
            type_: What a result is; a type that pydantic can check and that JSON can hold.
        """
        return Kept(self, kind, type_)

    def find(self, kind: str, key: str) -> Any:
        """What JSON held for a result; None if there is none."""
        return self._known.get((kind, key))

    def add(self, kind: str, results: Mapping[str, Any]) -> None:
        """Append results; those that are there already are left as they are."""
        if self.path is None:
            return
        new = {key: value for key, value in results.items() if (kind, key) not in self._known}
        self._known |= {(kind, key): value for key, value in new.items()}
        lines = [_line({"kind": kind, "key": key, "value": value}) for key, value in new.items()]
        if lines:
            with self._tolerant():
                self._append(self.path, lines)

    def discard(self) -> None:
        """Remove the file: nothing of it is to be used again."""
        self._known.clear()
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    @contextmanager
    def _tolerant(self) -> Iterator[None]:
        """Keep nothing from now on if the disk is full or refuses: answers are answers all the same."""
        try:
            yield
        except OSError as error:
            self.path = None
            logger.warning("answers could not be kept for the next run: %s", error)

    def _append(self, path: Path, lines: Sequence[str]) -> None:
        if self._file is None:
            make_folders(path.parent, private=True)
            self._file = FileIO(path, "a", opener=lambda name, flags: os.open(name, flags, PRIVATE_FILE))
            # Ends a line that a crash has cut off; an empty line means nothing.
            self._file.write(b"\n")
        content = "".join(lines).encode("utf-8")
        while content:
            content = content[self._file.write(content) :]
        if (self._lines + len(lines)) // LINES_BETWEEN_SYNCS > self._lines // LINES_BETWEEN_SYNCS:
            os.fsync(self._file.fileno())
        self._lines += len(lines)


class Kept(Generic[Value]):
    """The results of one kind in a journal.

    Args:
        journal: Where they are kept.
        kind: Their name in the journal.
        type_: What a result is.
    """

    def __init__(self, journal: Journal, kind: str, type_: type[Value]) -> None:
        self._journal = journal
        self._kind = kind
        self._adapter = TypeAdapter(type_)

    def find(self, key: Key) -> Value | None:
        """The result for an input, if an earlier run left it."""
        kept = self._journal.find(self._kind, digest(*key))
        if kept is None:
            return None
        try:
            return self._adapter.validate_python(kept)
        except ValidationError:
            logger.warning("ignored a damaged line in %s", self._journal.path)
            return None

    def add(self, results: Mapping[Key, Value]) -> None:
        """Keep results by their input."""
        self._journal.add(
            self._kind, {digest(*key): self._adapter.dump_python(value) for key, value in results.items()}
        )

    def run_grouped(
        self,
        prepared: Sequence[Prepared],
        keys: Sequence[Key],
        lengths: Sequence[int],
        run: Callable[[list[Prepared]], list[Value]],
        *,
        budget: int,
    ) -> Iterator[tuple[list[int], list[Value]]]:
        """Like :func:`kvw.evaluation.running.run_grouped`, leaving out batches that are all there.

        A batch of which anything is missing runs as a whole: the last digits of a result depend on what shares its
        batch, so only then does a resumed run come to the results of an uninterrupted one.

        Args:
            prepared: What to run.
            keys: The input of each item.
            lengths: Tokens of each item, images included.
            run: Called with the items of one batch.
            budget: Padded tokens per batch at the start.
        """
        key_of = {id(item): key for item, key in zip(prepared, keys, strict=True)}

        def run_missing(batch: list[Prepared]) -> list[Value]:
            kept = [self.find(key_of[id(item)]) for item in batch]
            known = [value for value in kept if value is not None]
            return known if len(known) == len(batch) else run(batch)

        for indices, results in run_grouped(prepared, lengths, run_missing, budget=budget):
            self.add({keys[index]: value for index, value in zip(indices, results, strict=True)})
            yield indices, results


def _line(row: Mapping[str, Any]) -> str:
    rest = json.dumps(row)[1:]
    return f"{_begin(rest.encode('utf-8')).decode('ascii')}{rest}\n"


def _begin(rest: bytes) -> bytes:
    return b'{"sha256": "%s", ' % hashlib.sha256(rest).hexdigest().encode("ascii")


def _read(path: Path) -> dict[tuple[str, str], Any]:
    lines = [line for line in path.read_bytes().split(b"\n") if line]
    whole = [line for line in lines if line == _begin(rest := line[len(_begin(b"")) :]) + rest]
    if len(whole) < len(lines):
        tell_damaged(path, f"lines that were cut off or changed: {len(lines) - len(whole)}")
        with suppress(UserError):
            write_bytes(path, b"".join(line + b"\n" for line in whole))
    rows = map(json.loads, whole)
    return {(row["kind"], row["key"]): row["value"] for row in rows}
