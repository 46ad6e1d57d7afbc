"""Fixtures that need models: a plugin of the processes that run tests, as the one that hands them out needs none."""

from __future__ import annotations

import copy
import functools
import gc
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from filelock import FileLock
from PIL.Image import Image
from tests import short_language, tiny_models  # noqa: F401
from tests.checkpoints import sharded
from tests.families import BROKEN, broken_upstream
from tests.tiny_models import built
from transformers import PreTrainedConfig, PreTrainedModel

from kvw.data.benchmarks import BenchmarkData
from kvw.toy import items
from kvw.toy import world as toy_world
from kvw.toy.people import Person
from kvw.toy.portraits import draw_portrait
from kvw.toy.world import Line, World, write_world


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of families that are broken in the installed transformers."""
    reasons = {family: why for family in BROKEN if (why := broken_upstream(family))}
    for item in items:
        values = item.callspec.params.values() if hasattr(item, "callspec") else ()
        for family in reasons.keys() & {value for value in values if isinstance(value, str)}:
            item.add_marker(pytest.mark.skip(reason=reasons[family]))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Tiny matrices: more threads only wait for each other, all the more with several test processes.
    torch.set_num_threads(1)
    # What the libraries are made of lives to the end; no collection need go through it again.
    gc.freeze()
    # Each test leaves little behind; to look for it after every few hundred new objects takes longer.
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_forced_to_the_disk() -> None:
    # That takes a few milliseconds each time, and no machine is switched off in a test.
    os.fsync = lambda _: None


@pytest.fixture(scope="session", autouse=True)
def _configurations_are_not_written_out() -> None:
    # transformers makes a text of each configuration that it reads, for a log of a level that nobody asks for.
    PreTrainedConfig.__repr__ = object.__repr__  # type: ignore[method-assign]


@pytest.fixture(scope="session", autouse=True)
def _torch_logs_as_others_do() -> None:
    # pytest puts its handlers into every logger that does not propagate, six times for each test. torch has sixty.
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger) and logger.name.partition(".")[0] == "torch":
            logger.propagate = True


TWO = ("llava", "qwen2_vl")
"""Families for tests of what follows from coefficients or batches, overriding ``family``. That these are right in every
family is for ``tests/models/test_family_parity.py`` and ``tests/data/test_real_processors.py``."""


@pytest.fixture(params=sorted(tiny_models.FAMILIES), scope="session")
def family(request: pytest.FixtureRequest) -> str:
    """Every family in turn."""
    name: str = request.param
    return name


@pytest.fixture
def model(family: str) -> PreTrainedModel:
    """A tiny model of the family in float32, free to be changed."""
    found = copy.deepcopy(built(family)[0]).eval()
    for module in found.modules():
        if hasattr(module, "rope_deltas"):
            module.rope_deltas = None  # Qwen2-VL remembers those of an earlier test's batch
    return found


@pytest.fixture
def processor(family: str) -> Any:
    """The family's processor; tests leave it as it was. Asked for in every test: a test may name its own ``family``."""
    return built(family)[1]


@pytest.fixture
def llava() -> PreTrainedModel:
    """A tiny LLaVA in float32, free to be changed."""
    return copy.deepcopy(built("llava")[0]).eval()


@pytest.fixture(scope="session")
def llava_processor() -> Any:
    """The processor of the tiny LLaVA."""
    return built("llava")[1]


@pytest.fixture
def qwen2_vl() -> PreTrainedModel:
    """A tiny Qwen2-VL in float32, free to be changed."""
    return copy.deepcopy(built("qwen2_vl")[0]).eval()


PORTRAITS: dict[str, Image] = {}


def drawn_once(person: Person, photo: int, size: int) -> Image:
    """As the toy world draws it; pictures are only looked at."""
    key = repr((person, photo, size))
    if key not in PORTRAITS:
        PORTRAITS[key] = draw_portrait(person, photo, size)
    return PORTRAITS[key]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the toy world's pictures and questions; read only. The first process that asks draws it for all."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "world"
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(toy_world, "draw_portrait", drawn_once)
                write_world(World(), folder.with_suffix(".part"))
            folder.with_suffix(".part").rename(folder)
    return folder


class FewLines(World):
    """Everybody of the toy world, asked about a few things; any beginning of a split is balanced over people."""

    def split(self, name: str) -> list[Line]:
        """The first lines of a split."""
        return super().split(name)[:36]


every_line = items._world.__wrapped__


@functools.cache
def few_lines(setting: str, seed: int) -> BenchmarkData:
    """The toy benchmark of a few lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(items, "World", FewLines)
        patch.setattr(toy_world, "draw_portrait", drawn_once)
        return cast(BenchmarkData, every_line(setting, seed))


@pytest.fixture(scope="module")
def small_toy() -> Iterator[None]:
    """A toy benchmark of 36 lines a split, for tests of what is done with a benchmark, whichever it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(items, "_world", few_lines)
        yield


class Saved(dict[str, Path]):
    """Checkpoint folders by family, each written when it is first asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def __missing__(self, family: str) -> Path:
        self[family] = tiny_models.save(family, self.root / family)
        return self[family]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The tiny models as checkpoint folders; read only."""
    return Saved(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def two_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of two weight files; tests work on copies of it."""
    return sharded(tmp_path_factory.mktemp("shards") / "model", shards=2, hidden=64, width=96, layers=2).folder
