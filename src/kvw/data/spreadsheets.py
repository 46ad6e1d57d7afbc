"""The rows of an XLSX spreadsheet."""

from __future__ import annotations

import datetime
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kvw.data.tables import Row, header_of, told
from kvw.errors import UserError
from kvw.optional import optional
from kvw.plural import counted

LARGEST = 256 * 2**20
"""Bytes of a spreadsheet when it is unpacked, as far as it tells the truth about itself."""
ERRORS = ("#N/A", "#REF!", "#NAME?", "#VALUE!", "#DIV/0!", "#NULL!", "#NUM!")


def read_xlsx(path: Path) -> Iterator[Row]:
    """The rows of the only sheet that holds any, below its header; numbers and dates become text.

    Raises:
        UserError: The file is not valid or too large, openpyxl is missing, several sheets hold rows, pictures lie
            on the sheet, a cell holds an error, or a row has cells beyond the header.
    """
    openpyxl = optional(
        "openpyxl", use="Reading a spreadsheet needs", extra="xlsx", instead=", or save the sheet as CSV UTF-8"
    )
    invalid = f"{path.name}: the file is not a valid XLSX spreadsheet."
    with told(invalid, "save it again as .xlsx, or as CSV UTF-8"), zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > LARGEST:
        raise UserError(f"{path.name}: the spreadsheet is too large.", do="save it as CSV UTF-8")
    if pictures := [entry.filename for entry in entries if entry.filename.startswith("xl/media/")]:
        raise UserError(
            f"{path.name}: pictures lie on the sheet, and are not read from there.",
            found=counted(len(pictures), "picture"),
            do="save them as files, name these in a column 'image', and delete the pictures from the sheet",
        )
    with told(invalid, "save it again as .xlsx, or as CSV UTF-8"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what spreadsheets can do and this reader does not need
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        sheets = [(sheet.title, _filled(sheet)) for sheet in book.worksheets]
        book.close()
    filled = [(title, rows) for title, rows in sheets if rows]
    if len(filled) > 1:
        raise UserError(
            f"{path.name}: several sheets hold rows.",
            found=", ".join(title for title, _ in filled),
            do="keep one sheet in the file, and save the others as files of their own",
        )
    for _, rows in filled:
        yield from _rows(path, rows)


def _filled(sheet: Any) -> list[tuple[int, Sequence[Any]]]:
    """The rows that hold anything, with their numbers."""
    sheet.reset_dimensions()  # what the file says of its size may be wrong, and would cut rows off
    return [
        (number, cells)
        for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1)
        if any(cell is not None and str(cell).strip() for cell in cells)
    ]


def _rows(path: Path, rows: Sequence[tuple[int, Sequence[Any]]]) -> Iterator[Row]:
    (_, first), *others = rows
    width = max(place for place, cell in enumerate(first, start=1) if cell is not None)
    names = header_of(path, [str(cell if cell is not None else "") for cell in first[:width]])
    for number, cells in others:
        if any(cell is not None for cell in cells[width:]):
            raise UserError(
                f"{path.name}:{number}: the row does not fit the header.",
                found=f"{counted(len(cells), 'cell')} for {counted(width, 'column')}",
                do="give every column a name in the first row",
            )
        texts = [_text(cell, f"{path.name}:{number}") for cell in cells[:width]]
        yield number, dict(zip(names, [*texts, *[""] * (width - len(texts))], strict=True))


def _text(cell: Any, where: str) -> Any:
    """A cell as text, close to how a spreadsheet shows it; truth values as they are."""
    if cell is None:
        return ""
    if isinstance(cell, str) and cell in ERRORS:
        raise UserError(f"{where}: a cell holds an error.", found=cell, do="put the formula right, or write the value")
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    if isinstance(cell, (datetime.date, datetime.time)):
        return cell.isoformat()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell) if isinstance(cell, (int, float)) and not isinstance(cell, bool) else cell
