"""What ``kvw data build`` asks in a terminal for what no option has said: each question with its default."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from kvw.building.files import check_place, chosen
from kvw.building.phrasings import LANGUAGES, check_facts, phrasings
from kvw.building.table import Subject, columns_of, facts_of, read_table, with_photos
from kvw.data.folders import DOCUMENTS, EXTENSIONS
from kvw.data.pictures import SUFFIXES
from kvw.errors import UserError

Taken = TypeVar("Taken")
NONE, ALL, TABLE, MODEL = "none", "all", "table", "model"
NAME, LANGUAGE, OUT = "name", "en", "data"
"""What is taken where neither an option nor an answer says something else."""
MOST = 8
"""Names of a table that are shown."""


@dataclass(frozen=True)
class Wanted:
    """What a request is built from; None for what nobody has said.

    Args:
        table: Who or what, with facts.
        from_model: The model to ask, in place of a table.
        out: The folder to write.
        photos: Folder of photos.
        forget: Whom to forget; empty for all.
        name: The column of the table that names them.
        language: Of the questions.
        phrasings: The user's own.
        about: Whom or what to ask the model about.
        confirm: Whether the user decides on each answer of the model.
    """

    table: Path | None = None
    from_model: str | None = None
    out: Path | None = None
    photos: Path | None = None
    forget: tuple[str, ...] | None = None
    name: str | None = None
    language: str | None = None
    phrasings: Path | None = None
    about: tuple[str, ...] | None = None
    confirm: bool | None = None

    @property
    def whole(self) -> bool:
        """Whether it can be done as it is."""
        return (self.table is not None or self.from_model is not None) and self.out is not None

    @property
    def words(self) -> list[str]:
        """The same as a command line."""
        named: dict[str, object] = {"from-model": self.from_model, "photos": self.photos, "language": self.language}
        named |= {"name": self.name, "phrasings": self.phrasings, "out": self.out}
        several = {"about": self.about or (), "forget": self.forget or ()}
        words = ["kvw", "data", "build", *([str(self.table)] if self.table else [])]
        words += [word for option, values in several.items() for value in values for word in (f"--{option}", value)]
        words += [word for option, value in named.items() if value is not None for word in (f"--{option}", str(value))]
        return [*words, *(["--confirm"] if self.confirm else [])]


class Questions:
    """Questions to whoever sits at the terminal.

    Args:
        read: Shows a prompt and gives what was typed; raises EOFError at the end of the input.
        tell: Shows a line.
    """

    def __init__(self, read: Callable[[str], str], tell: Callable[[str], None]) -> None:
        self._read, self.tell = read, tell

    def ask(self, what: str, default: str, take: Callable[[str], Taken]) -> Taken:
        """Ask until an answer can be used; an empty one is the default.

        Args:
            what: The question.
            default: Shown behind it; empty if there is none.
            take: Makes something of an answer, or raises a UserError, which is shown before it is asked again.

        Raises:
            UserError: The input ended.
        """
        while True:
            try:
                text = self._read(f"{what} [{default}]: " if default else f"{what}: ").strip() or default
            except EOFError as error:
                raise UserError(
                    "The input ended before everything was answered.",
                    found=what,
                    do="answer it, or give the options: kvw data build --help",
                ) from error
            try:
                if not text:
                    raise UserError("This needs an answer.", do="give one, or end with Ctrl-C")
                return take(text)
            except UserError as error:
                self.tell(str(error))


def complete(wanted: Wanted, ask: Questions, check_model: Callable[[str], object]) -> Wanted:
    """Ask for everything that is not said yet.

    Args:
        wanted: What is said.
        ask: The questions.
        check_model: Raises a UserError for what names no model.

    Raises:
        UserError: See :meth:`Questions.ask`, or what was said cannot be used.
    """
    if wanted.table is None and wanted.from_model is None and wanted.about is None:
        kinds = {TABLE: TABLE, MODEL: MODEL}
        kind = ask.ask("From a table with facts, or from what a model knows (table, model)", TABLE, _one_of(kinds))
    else:
        kind = TABLE if wanted.about is None and wanted.from_model is None else MODEL
    wanted = _of_a_table(wanted, ask) if kind == TABLE else _of_a_model(wanted, ask, check_model)
    if wanted.language is None:
        languages = dict.fromkeys(LANGUAGES, "")
        title = f"Language of the questions ({', '.join(LANGUAGES)})"
        wanted = replace(wanted, language=ask.ask(title, LANGUAGE, _one_of({one: one for one in languages})))
    if wanted.phrasings is None:
        own = ask.ask("JSON file of phrasings of your own", NONE, lambda text: _own(text, wanted))
        wanted = replace(wanted, phrasings=own)
    if wanted.out is None:
        wanted = replace(wanted, out=ask.ask("Folder to write", _free(), _place))
    return wanted


def _of_a_model(wanted: Wanted, ask: Questions, check: Callable[[str], object]) -> Wanted:
    if wanted.from_model is None:
        wanted = replace(wanted, from_model=ask.ask("Model", "", lambda text: _checked(text, check)))
    if not wanted.about:
        names = ask.ask("Whom or what to ask it about (several with ; between them)", "", _names)
        wanted = replace(wanted, about=names)
    if wanted.confirm is None:
        title = "Decide on each answer yourself (yes, no)"
        wanted = replace(
            wanted, confirm=ask.ask(title, "yes", _one_of({"yes": True, "y": True, "no": False, "n": False}))
        )
    return wanted


def _of_a_table(wanted: Wanted, ask: Questions) -> Wanted:
    if wanted.table is None:
        wanted = replace(wanted, table=ask.ask("Table with names and facts", _only_table(), _table))
    assert wanted.table is not None
    table = wanted.table
    columns = columns_of(table)
    if wanted.name is None:
        default = next((one for one in columns if one.strip().casefold() == NAME), columns[0])
        title = f"Column with the names ({', '.join(columns)})"
        wanted = replace(wanted, name=ask.ask(title, default, lambda text: _column(text, columns, table)))
    subjects = read_table(table, str(wanted.name))
    if wanted.photos is None:
        found = ask.ask(
            "Folder of photos that are called by the names", _photos(table), lambda text: _folder(text, subjects)
        )
        wanted = replace(wanted, photos=found)
    if wanted.forget is None:
        names = [one.name for one in subjects]
        more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
        ask.tell(f"{len(names)} in the table: {', '.join(names[:MOST])}{more}")
        title = "Whom to forget (several with ; between them)"
        wanted = replace(wanted, forget=ask.ask(title, ALL, lambda text: _forget(text, subjects)))
    return wanted


def _one_of(answers: dict[str, Taken]) -> Callable[[str], Taken]:
    def take(text: str) -> Taken:
        if text.casefold() not in answers:
            raise UserError("That is no answer to this.", found=text, do=f"type {', '.join(answers)}")
        return answers[text.casefold()]

    return take


def _checked(text: str, check: Callable[[str], object]) -> str:
    check(text)
    return text


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(filter(None, map(str.strip, text.split(";")))))
    if not names:
        raise UserError("This names nobody.", found=text, do="type a name")
    return names


def _table(text: str) -> Path:
    path = Path(text).expanduser()
    columns_of(path)
    return path


def _column(text: str, columns: list[str], table: Path) -> str:
    if text not in columns:
        raise UserError("There is no such column.", found=text, do=f"type one of {', '.join(columns)}")
    read_table(table, text)
    return text


def _folder(text: str, subjects: list[Subject]) -> Path | None:
    if text == NONE:
        return None
    path = Path(text).expanduser()
    with_photos(subjects, path)
    return path


def _forget(text: str, subjects: list[Subject]) -> tuple[str, ...]:
    names = () if text == ALL else _names(text)
    chosen(subjects, names)
    return names


def _own(text: str, wanted: Wanted) -> Path | None:
    if text == NONE:
        return None
    path = Path(text).expanduser()
    words = phrasings(str(wanted.language), path)
    if wanted.table is not None:
        check_facts(words, facts_of(read_table(wanted.table, str(wanted.name))))
    return path


def _place(text: str) -> Path:
    path = Path(text).expanduser()
    check_place(path)
    return path


def _free() -> str:
    """A folder that is not there yet."""
    return _first(name for number in range(1, 1000) if not Path(name := OUT + f"-{number}" * (number > 1)).exists())


def _only_table() -> str:
    """The table of the current folder, if there is only one."""
    kinds = [one for one in EXTENSIONS if one not in DOCUMENTS]
    found = list[str]()
    with suppress(OSError):  # what cannot be looked at is no default
        found += [path.name for path in sorted(Path().iterdir()) if path.suffix.lower() in kinds and path.is_file()]
    return found[0] if len(found) == 1 else ""


def _photos(table: Path) -> str:
    """The folder beside the table that has pictures, if there is only one."""
    found = list[Path]()
    with suppress(OSError):  # what cannot be looked at is no default
        folders = [path for path in sorted(table.parent.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        found += [path for path in folders if any(one.suffix.lower() in SUFFIXES for one in path.rglob("*"))]
    return str(found[0]) if len(found) == 1 else NONE


def _first(names: Iterable[str]) -> str:
    return next(iter(names), "")
