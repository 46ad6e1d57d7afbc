"""What holds for every test; the fixtures that need models are in ``tests/fixtures.py``."""

from __future__ import annotations

import os

# Before anything imports huggingface_hub, which reads it once: no test touches the network.
os.environ["HF_HUB_OFFLINE"] = "1"

import gc
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.deprecations import watched

from kvw.cache import cache_directory
from kvw.runs.environment import packages

# While modules are imported and tests gathered, nothing is thrown away; ``tests/fixtures.py`` switches it on again.
gc.disable()


def pytest_configure(config: pytest.Config) -> None:
    """Load the models' libraries, which takes seconds, unless this process only hands tests out to others."""
    if config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("tests.fixtures")


def pytest_report_header() -> str:
    """With which versions the tests run."""
    return "with " + ", ".join(f"{package.name} {package.version}" for package in packages() if package.version)


@pytest.fixture(autouse=True)
def _no_deprecated_calls() -> Iterator[None]:
    """No call of ours may be one that a library is about to drop."""
    with watched() as found:
        yield
    assert not found, "calls that a library says are deprecated:\n" + "\n".join(found)


USER_CACHE = cache_directory()
"""Where models that were made once are; only slow tests look there."""
NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the caches of the tests of this process."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def _own_cache(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads what another one, or the developer, has cached."""
    folder = caches / str(next(NUMBERS))
    folder.mkdir()
    monkeypatch.setenv("KVW_CACHE", str(folder))
