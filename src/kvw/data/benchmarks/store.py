"""Where a benchmark's tables come from: the Hugging Face hub, or a copy of the data set on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from kvw.data.pictures import is_file
from kvw.data.strict_json import NotJson, parse_json
from kvw.errors import UserError
from kvw.known import known

PANDAS_INDEX = "__index_level_0__"
"""A column that pandas leaves behind when it writes Parquet; it says nothing."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table.

    Args:
        required: What is read; each must be there.
        optional: What may be there besides; an absent one is read as null.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


class Store:
    """A data set on the hub or in a folder.

    Args:
        source: A hub id (``owner/name``) or a folder. A folder holds what the hub holds (a clone or snapshot), or
            what ``save_to_disk`` wrote for each table, or the Parquet files of each table in a folder of its name.
        ignore_columns: Columns that may be there although they are not known.

    Raises:
        UserError: The folder does not exist.
    """

    def __init__(self, source: str | Path, ignore_columns: Collection[str] = ()) -> None:
        self.source = source
        self._ignored = {*ignore_columns, PANDAS_INDEX}
        folder = Path(source)
        is_hub_id = isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "/", "~"))
        if not folder.is_dir() and (not is_hub_id or folder.exists()):
            raise UserError(
                "The data set is neither a folder nor a hub id.",
                found=str(source),
                do="give an existing folder, or a name such as owner/data-set",
            )
        self.local = folder if folder.is_dir() else None

    def table(self, name: str | None, columns: Columns, split: str | None = None) -> Iterator[Mapping[str, Any]]:
        """The rows of a table, with images as encoded bytes.

        Args:
            name: Its configuration on the hub; none for data sets that have only one table.
            columns: What its columns must be.
            split: Which of its splits; none for a table that has only one, whatever it is called.

        Raises:
            UserError: The table cannot be loaded, has no such split or more than one, or has other columns.
        """
        data = self._load(name, split)
        self.check_columns(name or str(self.source), data.column_names, columns)
        return self._rows(data, columns)

    def has(self, name: str) -> bool:
        """Whether a folder holds a table of this name; of the hub it is assumed."""
        return self.local is None or (self.local / name).is_dir() or name in self._configurations(self.local)

    def folder(self, *patterns: str) -> Path:
        """A folder with the files that match; downloaded first if the data set is on the hub.

        Raises:
            UserError: The files cannot be downloaded.
        """
        if self.local is not None:
            return self.local
        import huggingface_hub

        try:
            return Path(
                huggingface_hub.snapshot_download(str(self.source), repo_type="dataset", allow_patterns=list(patterns))
            )
        except (OSError, ValueError) as error:
            raise self._not_loaded("files", error) from error

    def json(self, name: str) -> Any:
        """The content of a JSON file, or the list of values of a JSON Lines file.

        Raises:
            UserError: It is missing, not UTF-8, or JSON that :func:`kvw.data.strict_json.parse_json` refuses.
        """
        path = self.folder(name) / name
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{name} is not UTF-8.", found=str(error), do="download it again") from error
        except OSError as error:
            there = ", ".join(sorted(one.name for one in path.parent.glob("*.json"))) or "no JSON files"
            raise UserError(
                f"The data set has no file {name}.",
                found=f"{there} in {path.parent}",
                do="check that the copy is whole",
            ) from error
        try:
            return parse_json(text, name, "download it again")
        except NotJson as error:
            # FIUBench has been published in both forms under one name.
            lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
            try:
                return [parse_json(line, f"{name}:{number}", "download it again") for number, line in lines]
            except NotJson:
                raise error from None

    def records(self, name: str, columns: Columns) -> list[Mapping[str, Any]]:
        """The structures of a JSON file that holds a list of them; a key that a few lack is null there.

        Raises:
            UserError: It holds something else, or structures with other keys.
        """
        values = self.json(name)
        if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
            raise UserError(
                f"{name} does not hold a list of structures.", found=type(values).__name__, do="download it again"
            )
        keys = list(dict.fromkeys(key for one in values for key in one))
        self.check_columns(name, keys, columns)
        absent = dict.fromkeys([*columns.optional, *keys])
        return [{**absent, **one} for one in values]

    def check_columns(self, table: str, found: Collection[str], columns: Columns) -> None:
        """Check the names of a table's columns.

        Raises:
            UserError: One is missing, or one is not known.
        """
        missing = [name for name in columns.required if name not in found]
        unknown = [name for name in found if name not in {*columns.required, *columns.optional, *self._ignored}]
        if missing:
            raise UserError(
                f"{table}: the column {missing[0]!r} is missing.",
                found=f"columns {', '.join(found)}",
                do="check that this is the right data set; its schema may have changed",
            )
        if unknown:
            raise UserError(
                f"{table}: the column {unknown[0]!r} is not known.",
                found=f"columns {', '.join(found)}",
                do=f"if it does not matter, pass ignore_columns=({unknown[0]!r},); the schema may have changed",
            )

    def _load(self, name: str | None, split: str | None) -> Any:
        library = _datasets()
        try:
            if self.local is None:
                loaded = library.load_dataset(str(self.source), name)
            else:
                loaded = self._load_local(library, self.local, name)
        except (library.exceptions.DatasetsError, OSError, ValueError, StopIteration) as error:
            # The library looks for the first row, in older releases for what it says of the columns.
            if isinstance(error, StopIteration) or isinstance(
                error.__cause__, library.arrow_writer.SchemaInferenceError
            ):
                raise UserError(
                    f"The table {name or self.source} is empty.", found="a file without rows", do="download it again"
                ) from error
            raise self._not_loaded(f"table {name}" if name else "table", error) from error
        if not isinstance(loaded, library.DatasetDict):
            return loaded
        if split is not None:
            return loaded[known(split, loaded, "split", str(name or self.source))]
        if len(loaded) != 1:
            # The name of the split says nothing: MLLMU-Bench has been seen with "train" and "test" for one table.
            raise UserError(
                f"The table {name or self.source} has more than one split.",
                found=", ".join(loaded),
                do="check that this is the right data set; its schema may have changed",
            )
        return next(iter(loaded.values()))

    def _load_local(self, library: ModuleType, folder: Path, name: str | None) -> Any:
        place = folder / name if name else folder
        if (place / "state.json").is_file() or (place / "dataset_dict.json").is_file():
            return library.load_from_disk(str(place))
        # The library's cache takes two folders of one name for the same, and does not see that files have changed.
        cache = str(Path(library.config.HF_DATASETS_CACHE) / "copies" / _state(folder))
        configurations = self._configurations(folder)
        if name is None or name in configurations:
            return library.load_dataset(str(folder), name, cache_dir=cache)
        files = sorted(map(str, place.rglob("*.parquet")))
        if files:
            return library.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
        tables = dict.fromkeys([*configurations, *(one.name for one in sorted(folder.iterdir()) if one.is_dir())])
        known(name, tables, "table", str(folder))
        raise UserError(f"The table {name} is empty.", found=f"no Parquet files in {place}", do="download it again")

    def _configurations(self, folder: Path) -> list[str]:
        """The tables that the README of a copy declares."""
        if not (folder / "README.md").is_file():
            return []
        from huggingface_hub import DatasetCard

        declared = DatasetCard.load(folder / "README.md", ignore_metadata_errors=True).data.to_dict().get("configs")
        return [str(one["config_name"]) for one in declared or [] if "config_name" in one]

    def _rows(self, data: Any, columns: Columns) -> Iterator[Mapping[str, Any]]:
        absent = dict.fromkeys(columns.optional)
        # As Arrow, and not by iterating: that would decode every image.
        for batch in data.with_format("arrow").iter(batch_size=64):
            yield from ({**absent, **row} for row in batch.to_pylist())

    def _not_loaded(self, what: str, error: Exception) -> UserError:
        first = str(error).strip().split("\n")[0]
        return UserError(
            f"The {what} of {self.source} cannot be loaded.",
            found=f"{type(error).__name__}: {first}",
            do="check the name and the connection, or give a folder with a copy of the data set",
        )


def _state(folder: Path) -> str:
    """A name for a folder and what is in it: another one as soon as a file is added, taken away or written to."""
    files = sorted(one for one in folder.rglob("*") if one.is_file())
    seen = [(str(one), one.stat().st_size, one.stat().st_mtime_ns) for one in files]
    return hashlib.sha256(repr((str(folder.resolve()), seen)).encode()).hexdigest()[:32]


def _datasets() -> ModuleType:
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise UserError(
            "Reading benchmarks needs the package datasets.",
            found=str(error),
            do="pip install 'kvw[bench]'",
        ) from error
    return datasets


def image_file(folder: Path, *names: str) -> Path | None:
    """The first of some relative paths that is a file in a folder.

    Raises:
        UserError: A path cannot be looked at.
    """
    return next((folder / name for name in names if is_file(folder / name, name)), None)
