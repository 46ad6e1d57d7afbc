"""Rows of a benchmark's tables, read with checks, and the ledger in which each of them is accounted for."""

from __future__ import annotations

import ast
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kvw.data.benchmarks.items import Account, Item, Task, Unusable
from kvw.data.example import ImageSource
from kvw.data.pictures import picture
from kvw.data.strict_json import NotJson, parse_json
from kvw.errors import UserError


class Rejected(Exception):
    """Raised while an entry is read that cannot become an item; the text is the reason."""


@dataclass(frozen=True)
class Row:
    """A row, or a structure inside one.

    Getters raise ``Rejected`` for content that is absent only in this row, and ``UserError`` for content of a
    kind that the column must not have: then the data set has changed.

    Args:
        table: The name of its table.
        number: The position in the table, from 1.
        name: How messages name it: ``table:number``, and the place inside the row.
        values: The columns.
    """

    table: str
    number: int
    name: str
    values: Mapping[str, Any]

    def text(self, column: str) -> str:
        """A text that is not empty, without white space around it."""
        text = self.optional_text(column)
        if text is None:
            raise Rejected(f"{column} is empty")
        return text

    def optional_text(self, column: str) -> str | None:
        """A text without white space around it; none if it is null or empty."""
        value = self._value(column)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self._unexpected(column, value, "a text")
        return value.strip() or None

    def texts(self, column: str) -> tuple[str, ...]:
        """A list of texts, or a single one; empty and null ones are left out, and so are repetitions."""
        value = self._value(column)
        values = [value] if isinstance(value, str) else value
        if values is None:
            return ()
        if not isinstance(values, list) or any(one is not None and not isinstance(one, str) for one in values):
            raise self._unexpected(column, value, "a list of texts")
        return tuple(dict.fromkeys(one.strip() for one in values if one and one.strip()))

    def key(self, column: str, *, width: int = 0) -> str:
        """An identifier given as a text or a whole number, filled with zeros on the left up to ``width``."""
        value = self._value(column)
        if value is None or value == "":
            raise Rejected(f"{column} is empty")
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise self._unexpected(column, value, "a text or a whole number")
        return str(value).strip().zfill(width)

    def image(self, column: str) -> ImageSource:
        """An image, as the hub's Parquet files carry it."""
        value = self._value(column)
        if value is None or (isinstance(value, dict) and value.get("bytes") is None and not value.get("path")):
            raise Rejected(f"{column} is empty")
        return self._image(column, value)

    def images(self, column: str) -> tuple[ImageSource, ...]:
        """A list of images, at least one."""
        value = self._value(column)
        if value is not None and not isinstance(value, list):
            raise self._unexpected(column, value, "a list of images")
        pictures = tuple(self._image(column, one) for one in value or () if one is not None)
        if not pictures:
            raise Rejected(f"{column} is empty")
        return pictures

    def nested(self, column: str) -> Any:
        """A structure; where it is written into a text, as JSON or as a Python literal, that is parsed."""
        value = self._value(column)
        if not isinstance(value, str):
            return value
        try:
            return parse_json(value, column, "")
        except NotJson:
            pass
        except UserError as error:
            raise Rejected(error.what) from error
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise Rejected(f"{column} is neither JSON nor a Python literal") from error

    def inside(self, column: str, value: object, place: object = None) -> Row:
        """A structure inside this row, as a row of its own."""
        where = column if place is None else f"{column}[{place}]"
        if not isinstance(value, Mapping):
            raise self._unexpected(where, value, "a structure")
        return replace(self, name=f"{self.name} {where}", values=value)

    def list_inside(self, column: str) -> list[Row]:
        """The structures of a list; none if the column is null."""
        value = self.nested(column)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._unexpected(column, value, "a list")
        return [self.inside(column, one, place) for place, one in enumerate(value)]

    def optional_key(self, column: str) -> str | None:
        """Like ``key``, but none if it is null or empty."""
        return None if self._value(column) in (None, "") else self.key(column)

    def metadata(self, **more: Any) -> dict[str, Any]:
        """Metadata of an item that is made from this row."""
        return {"row": f"{self.table}:{self.number}", **more}

    def _value(self, column: str) -> Any:
        if column not in self.values:
            raise UserError(
                f"{self.name}: the column {column!r} is missing.",
                found=f"columns {', '.join(map(str, self.values)) or '(none)'}",
                do="check that this is the right data set; its schema may have changed",
            )
        return self.values[column]

    def _image(self, column: str, value: object) -> ImageSource:
        if isinstance(value, dict) and value.keys() >= {"bytes", "path"}:
            return picture(value, f"{self.name} {column}", Path())
        raise self._unexpected(column, value, "an image")

    def _unexpected(self, column: str, value: object, wanted: str) -> UserError:
        shown = repr(value)
        return UserError(
            f"{self.name}: the column {column!r} does not hold {wanted}.",
            found=f"{type(value).__name__} {shown if len(shown) <= 80 else shown[:80] + ' ...'}",
            do="check that this is the right data set; its schema may have changed",
        )


@dataclass
class _Tally:
    rows: int = 0
    outside: int = 0
    entries: int = 0
    items: int = 0
    unusable: list[Unusable] = field(default_factory=list)


class Ledger:
    """Collects items, and counts what was read and what could not be used.

    A reader goes over ``rows``, and opens an ``entry`` for every question it finds. An entry ends with one item,
    or, when a getter of the row rejects the content, with a reason. A row without any entry is itself reported,
    unless the reader has declared it to be ``outside`` of the setting.
    """

    def __init__(self) -> None:
        self._tallies: dict[str, _Tally] = {}
        self._items: dict[tuple[str, str], list[Item]] = {}

    def rows(self, name: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
        """Go over the rows of the table of this name."""
        tally = self._tallies.setdefault(name, _Tally())
        for number, values in enumerate(rows, start=1):
            row = Row(name, number, f"{name}:{number}", values)
            tally.rows += 1
            before = tally.entries + tally.outside
            yield row
            if tally.entries + tally.outside == before:
                self._reject(row, "it holds nothing that can be asked")

    def outside(self, row: Row) -> None:
        """Declare that a row does not belong to the setting."""
        self._tallies[row.table].outside += 1

    def part(self, row: Row, column: str) -> Row | None:
        """The structure in a column; none if it is null, or cannot be parsed, which is then reported."""
        try:
            value = row.nested(column)
        except Rejected as rejected:
            self._reject(row, str(rejected))
            return None
        return None if value is None else row.inside(column, value)

    def parts(self, row: Row, column: str) -> list[Row]:
        """The structures of a list; none if it is absent or null, or cannot be parsed, which is then reported."""
        try:
            return row.list_inside(column) if column in row.values else []
        except Rejected as rejected:
            self._reject(row, str(rejected))
            return []

    @contextmanager
    def entry(self, row: Row, split: str, task: str) -> Iterator[Callable[[Item], None]]:
        """Read one question; the block calls what it is given with the item that it makes, once."""
        tally = self._tallies[row.table]
        tally.entries += 1
        made: list[Item] = []
        try:
            yield made.append
        except Rejected as rejected:
            tally.unusable.append(Unusable(row.name, f"{split} / {task}", str(rejected)))
            return
        if len(made) != 1:
            raise RuntimeError(f"{row.name}: an entry must make one item, not {len(made)}")
        tally.items += 1
        self._items.setdefault((split, task), []).append(made[0])

    def _reject(self, row: Row, reason: str) -> None:
        tally = self._tallies[row.table]
        tally.entries += 1
        tally.unusable.append(Unusable(row.name, "", reason))

    def items(self, split: str, task: str) -> tuple[Item, ...]:
        """What was collected for one task of one split."""
        return tuple(self._items.get((split, task), ()))

    def split(self, split: str, forms: Mapping[str, Task]) -> dict[str, Task]:
        """The tasks of a split with the items that were collected; tasks without any are left out."""
        filled = {name: replace(form, items=self.items(split, name)) for name, form in forms.items()}
        return {name: task for name, task in filled.items() if task.items}

    def accounts(self) -> tuple[Account, ...]:
        """One account for each table, in the order of reading."""
        return tuple(
            Account(name, tally.rows, tally.outside, tally.entries, tally.items, tuple(tally.unusable))
            for name, tally in self._tallies.items()
        )


def not_forgotten(subject: str, forgotten: Container[str]) -> None:
    """Reject whoever is also in the forget set: such a row in another split would measure a leak.

    Raises:
        Rejected: The subject is among the forgotten ones.
    """
    if subject in forgotten:
        raise Rejected(f"{subject} is also in the forget set")
