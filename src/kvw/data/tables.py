"""The rows of JSONL, CSV and Parquet files, one after the other, within bounds of memory."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

from kvw.data.columns import TEXT_COLUMNS
from kvw.data.strict_json import parse_json
from kvw.errors import UserError
from kvw.plural import counted
from kvw.printable import shortened

LONGEST_LINE = 64 * 2**20
"""Characters of one line or cell: a picture of 48 MB in base64."""
MOST_AT_ONCE = 256 * 2**20
"""Bytes of Parquet that are unpacked at once, as far as the file tells the truth about itself."""
MOST_ROWS = 10**6
DELIMITERS = (",", ";", "\t", "|")
HEADER_LINES = 20
NAMED_DELIMITER = re.compile(r"\"?sep=(.)\"?\s*", re.IGNORECASE)
"""The first line by which some spreadsheets say what divides the cells."""
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

Row = tuple[int, Mapping[Any, Any]]
"""The 1-based number of the line in which it begins, or of the row in Parquet, Arrow and spreadsheets; its columns."""


def read_jsonl(path: Path) -> Iterator[Row]:
    """The objects of a JSON Lines file.

    Raises:
        UserError: The file cannot be read, a line is too long or no JSON object.
    """
    # Split at "\n" alone: JSON strings may hold separators such as U+2028, which are no line ends here.
    for number, line in enumerate(text_lines(path, newline="\n"), start=1):
        if not line.strip():
            continue
        row = parse_json(line, f"{path.name}:{number}: the line", "write one JSON object per line, or all in one list")
        if not isinstance(row, dict):
            raise UserError(
                f"{path.name}:{number}: the line is not a JSON object.",
                found=shortened(line.strip()),
                do='write one object per line, such as {"question": "...", "answer": "..."}',
            )
        yield number, row


def read_csv(path: Path) -> Iterator[Row]:
    """The rows of a CSV file with a header; rows of empty cells are skipped.

    Cells are divided by what a first line ``sep=;`` names; else by the one of ``DELIMITERS`` that gives the header both
    ``TEXT_COLUMNS``, else the most columns.

    Raises:
        UserError: The file cannot be read, or is not valid CSV.
    """
    before = csv.field_size_limit(LONGEST_LINE)
    try:
        lines = text_lines(path, newline="")
        head = list(islice(lines, HEADER_LINES))
        named = NAMED_DELIMITER.fullmatch(head[0]) if head else None
        if named:
            head[0] = "\n"  # an empty line, so that the others keep their numbers
        delimiter = named[1] if named else _delimiter(head)
        yield from _cells(path, csv.reader(chain(head, lines), delimiter=delimiter, strict=True), delimiter)
    finally:
        csv.field_size_limit(before)


def _cells(path: Path, reader: Any, delimiter: str) -> Iterator[Row]:
    header: list[str] | None = None
    begins = 1
    try:
        for cells in reader:
            blank = not any(cell.strip() for cell in cells)
            if header is None and not blank:
                header = header_of(path, cells)
            elif header is not None and not blank:
                if len(cells) != len(header):
                    columns = counted(len(header), "column")
                    raise UserError(
                        f"{path.name}:{begins}: the row does not fit the header.",
                        found=f"{counted(len(cells), 'cell')} for {columns} divided by {delimiter!r}",
                        do=f"put texts that contain {delimiter!r} or line breaks into double quotes",
                    )
                yield begins, dict(zip(header, cells, strict=True))
            begins = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path.name}: the file is not valid CSV.",
            found=f"{error} (line {reader.line_num} of the file, in the row that begins in line {begins})",
            do='quote texts with double quotes, and write a double quote inside as ""',
        ) from error


def header_of(path: Path, cells: list[str]) -> list[str]:
    """The names of columns without white space around them.

    Raises:
        UserError: One of them occurs twice.
    """
    names = [cell.strip() for cell in cells]
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        found = shortened(twice) or "two columns without a name"
        raise UserError(f"{path.name}: a column name occurs twice.", found=found, do="rename one of them")
    return names


def header_cells(head: list[str], delimiter: str) -> list[str]:
    """The cells of the first row that holds any, without white space around them; none if this is not valid CSV."""
    try:
        rows = csv.reader(iter(head), delimiter=delimiter, strict=True)
        return next(([cell.strip() for cell in row] for row in rows if any(row)), [])
    except csv.Error:
        return []


def _delimiter(head: list[str]) -> str:
    def score(delimiter: str) -> tuple[int, int]:
        names = header_cells(head, delimiter)
        return (len(set(TEXT_COLUMNS).intersection(names)), len(names))

    return max(DELIMITERS, key=score)  # of equal ones the first


def read_parquet(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file.

    Raises:
        UserError: The file is not valid, has more than ``MOST_ROWS``, or a value has no counterpart in Python.
    """
    # Imported here because it takes a quarter of a second, and most data files are JSONL.
    from pyarrow import parquet

    invalid = f"{path.name}: the file is not valid Parquet."
    with told(invalid):
        file = parquet.ParquetFile(path)
    with file:
        if file.metadata.num_rows > MOST_ROWS:
            raise UserError(f"{path.name}: there are {file.metadata.num_rows} rows.", do=f"give at most {MOST_ROWS}")
        with told(invalid):
            batches = file.iter_batches(batch_size=_batch_size(file.metadata))
        yield from _batched(path, file.schema_arrow.names, batches, invalid)


def read_arrow(path: Path) -> Iterator[Row]:
    """The rows of an Arrow file, as ``save_to_disk`` of Hugging Face datasets writes it.

    Raises:
        UserError: The file is not valid, or a value has no counterpart in Python.
    """
    import pyarrow

    invalid = f"{path.name}: the file is not valid Arrow."
    with told(invalid):
        file = pyarrow.memory_map(str(path))
    with file:
        with told(invalid):
            try:
                stream = pyarrow.ipc.open_stream(file)
                names, batches = stream.schema.names, iter(stream)
            except pyarrow.ArrowInvalid:
                file.seek(0)
                whole = pyarrow.ipc.open_file(file)
                names, batches = whole.schema.names, map(whole.get_batch, range(whole.num_record_batches))
        few = (batch.slice(start, 256) for batch in batches for start in range(0, batch.num_rows, 256))
        yield from _batched(path, names, few, invalid)


def _batched(path: Path, columns: list[str], batches: Iterator[Any], invalid: str) -> Iterator[Row]:
    """The rows of batches of Arrow."""
    number, names = 0, header_of(path, columns)
    while True:
        with told(invalid):
            batch = next(batches, None)
        if batch is None:
            return
        found = []
        for name, column in zip(names, batch.columns, strict=True):
            what = f"{path.name}: the column {shortened(name, 40)!r} cannot be read, near row {number + 1}."
            with told(what, "leave the column out, or write its values as text"):
                found.append(column.to_pylist())
        for values in zip(*found, strict=True):
            number += 1
            yield number, dict(zip(names, values, strict=True))


def _batch_size(metadata: Any) -> int:
    """How many rows fit into ``MOST_AT_ONCE`` even if each has the largest value of its row group."""
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    sizes = [sum(one.column(place).total_uncompressed_size for place in range(one.num_columns)) for one in groups]
    return int(max(1, min(256, MOST_AT_ONCE // max(1, *sizes, 1))))


@contextmanager
def told(what: str, do: str = "write the file again") -> Iterator[None]:
    """Any error inside becomes one message: the library raises its own, and those of Python's conversions."""
    try:
        yield
    except PermissionError as error:
        raise UserError("The data file cannot be read.", found=str(error), do="check who may read it") from error
    except Exception as error:
        first = shortened(str(error).partition("\n")[0], 200)
        raise UserError(what, found=f"{type(error).__name__}: {first}", do=do) from error


def text_lines(path: Path, newline: str | None) -> Iterator[str]:
    """The lines of a text file with their ends.

    Args:
        path: A file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark.
        newline: As for :func:`open`.

    Raises:
        UserError: The file cannot be read, is not such text, or a line is longer than ``LONGEST_LINE``.
    """
    try:
        encoding = _encoding(path)
        with path.open(encoding=encoding, newline=newline) as file:
            number = 0
            while line := file.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise UserError(
                        f"{path.name}:{number}: the line is longer than {LONGEST_LINE} characters.",
                        do="check that it is the right file; give large pictures as files of their own",
                    )
                yield line
    except UnicodeDecodeError as error:
        raise _not_text(path, error) from error
    except OSError as error:
        raise UserError("The data file cannot be read.", found=f"{path}: {error}", do="check the file") from error


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(1024)
    for mark, encoding in BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding
    if b"\0" in head:
        raise UserError(
            f"{path.name}: the text is not UTF-8.",
            found="zero bytes, which UTF-16 without a byte order mark has",
            do=_as_utf_8(path),
        )
    return "utf-8"


def _as_utf_8(path: Path) -> str:
    is_csv = path.suffix.lower() in (".csv", ".tsv")
    return "save the file as UTF-8" + "; a spreadsheet calls it 'CSV UTF-8'" * is_csv


def _not_text(path: Path, error: UnicodeDecodeError) -> UserError:
    """Find the line: the decoder only knows the place in its buffer."""
    if not error.encoding.startswith("utf-8"):
        return UserError(
            f"{path.name}: the text is broken {error.encoding.upper()}.", found=error.reason, do=_as_utf_8(path)
        )
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as found:
                return UserError(
                    f"{path.name}:{number}: the text is not UTF-8.",
                    found=f"byte 0x{line[found.start]:02x} ({found.reason})",
                    do=_as_utf_8(path),
                )
    return UserError(f"{path.name}: the text is not UTF-8.", found=error.reason, do=_as_utf_8(path))
