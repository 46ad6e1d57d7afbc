"""What kvw runs on: what a bug report needs. Only the devices need torch."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from packaging.version import Version
from pydantic import computed_field

from kvw._version import __version__
from kvw.cache import cache_directory
from kvw.strict import Strict


class Package(Strict):
    """A package that kvw uses, and the versions it was tested with."""

    name: str
    version: str | None
    """The installed one; None if it is not installed."""
    oldest: str
    newest: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Literal["", "not installed", "older than tested", "newer than tested"]:
        """What is wrong with the installed version; empty if nothing is."""
        if self.version is None:
            return "not installed"
        version = Version(Version(self.version).public)  # without +cpu and the like
        if version < Version(self.oldest):
            return "older than tested"
        return "newer than tested" if version > Version(self.newest) else ""


class Devices(Strict):
    """What torch can compute on."""

    names: tuple[str, ...]
    """Each with its memory, the CPU first. If torch finds no accelerator, only the CPU."""
    seconds: float
    """How long torch took to load and to find them."""
    error: str = ""
    """Why torch cannot be loaded."""


class Cache(Strict):
    """The folder of statistics and unfinished work."""

    folder: str
    files: int
    size: int
    """Bytes."""


class Environment(Strict):
    """What a bug report needs."""

    kvw: str
    python: str
    platform: str
    packages: tuple[Package, ...]
    cache: Cache


def environment() -> Environment:
    """Versions, with the tested ones, and the cache; without loading any of the packages."""
    return Environment(
        kvw=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=packages(),
        cache=cache(),
    )


def packages() -> tuple[Package, ...]:
    """The packages that kvw uses, in alphabetical order, optional ones included."""
    oldest, newest = _pins("oldest.txt"), _pins("tested.txt")
    return tuple(
        Package(name=name, version=_installed(name), oldest=oldest[name], newest=newest[name]) for name in oldest
    )


def cache() -> Cache:
    """Where the cache is and what it holds; nothing if it is not there, or what vanishes meanwhile."""
    folder = cache_directory()
    sizes = []
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append((Path(parent) / name).lstat().st_size)
            except OSError:
                continue
    return Cache(folder=str(folder), files=len(sizes), size=sum(sizes))


def devices() -> Devices:
    """Load torch, which takes seconds, and ask it for accelerators; an installation that is broken is told."""
    start = time.perf_counter()
    cpu = f"cpu: {os.cpu_count()} cores, {_size(psutil.virtual_memory().total)}"
    try:
        import torch

        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        count = torch.accelerator.device_count() if accelerator else 0
        names = (
            [f"{accelerator.type}:{index}{_described(accelerator.type, index)}" for index in range(count)]
            if accelerator
            else []
        )
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        first = str(error).strip().splitlines()
        return Devices(names=(cpu,), seconds=time.perf_counter() - start, error=first[0] if first else repr(error))
    return Devices(names=(cpu, *names), seconds=time.perf_counter() - start)


def _described(kind: str, index: int) -> str:
    """Model and memory of an accelerator; nothing if torch does not tell them for this kind."""
    import torch

    read = getattr(torch.get_device_module(kind), "get_device_properties", None)
    found = read(index) if read else None
    name, memory = getattr(found, "name", ""), getattr(found, "total_memory", 0)
    return f": {name}, {_size(memory)}" if name and memory else ""


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _pins(file: str) -> dict[str, str]:
    """Exact versions by name, from ``requirements/``: of a source tree, or the copy in an installed package."""
    here = Path(__file__).parents
    folder = next(place for place in (here[3], here[1]) if (place / "requirements" / file).is_file())
    lines = (folder / "requirements" / file).read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==", 1) for line in lines if line and not line.startswith("#"))
    return dict(pairs)
