"""What a benchmark is: where it comes from, which settings it has, and how its tables are read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kvw.data.benchmarks.items import BenchmarkData
from kvw.data.benchmarks.store import Store
from kvw.known import known


@dataclass(frozen=True)
class Request:
    """What an adapter is asked for.

    Args:
        data: The data set itself.
        setting: Which of the benchmark's settings.
        seed: Seed for the choices that the data leave open (which of several images, the order of options).
        others: Further data sets or folders, by the names in ``Benchmark.others``.
    """

    data: Store
    setting: str
    seed: int
    others: Mapping[str, Store]


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that can be loaded from the hub or from a copy.

    Args:
        name: How it is asked for.
        title: How its authors call it.
        hub_id: Its data set on the hub.
        licence: Licence of the data, as their authors state it.
        paper: Where it was published.
        settings: What can be forgotten, smallest first.
        read: The adapter.
        others: Further sources it can use, and the hub id of each; empty where there is none on the hub.
    """

    name: str
    title: str
    hub_id: str
    licence: str
    paper: str
    settings: tuple[str, ...]
    read: Callable[[Request], BenchmarkData]
    others: Mapping[str, str] = field(default_factory=dict)

    def load(
        self,
        source: str | Path | None = None,
        setting: str | None = None,
        *,
        seed: int = 0,
        others: Mapping[str, str | Path] | None = None,
        ignore_columns: Collection[str] = (),
    ) -> BenchmarkData:
        """Read the benchmark in one of its settings.

        Args:
            source: A hub id or a folder with a copy; the hub id of the authors if absent.
            setting: One of ``settings``; the first if absent.
            seed: Seed for the choices that the data leave open.
            others: Further sources, by the names in ``self.others``. From the hub they are taken by themselves if
                the data set is taken from the hub; with a copy they are used only if they are given.
            ignore_columns: Columns that may be there although they are not known.

        Raises:
            UserError: There is no such setting, a source cannot be loaded, or its columns are not those that the
                benchmark is known to have.
        """
        setting = self.settings[0] if setting is None else setting
        known(setting, dict.fromkeys(self.settings), "setting", self.title)
        data = Store(self.hub_id if source is None else source, ignore_columns)
        given = dict(others or {})
        for name in given:
            known(name, self.others, "further source", self.title)
        if data.local is None:
            given = {**{name: hub_id for name, hub_id in self.others.items() if hub_id}, **given}
        stores = {name: Store(other, ignore_columns) for name, other in given.items()}
        return self.read(Request(data, setting, seed, stores))
