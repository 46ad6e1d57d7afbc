"""What all tests of benchmarks share: a cache of their own, and copies that several files read and none changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from tests.data.benchmarks import copies

from kvw.bench.benchmarks import get_benchmark
from kvw.data.benchmarks import BenchmarkData


@pytest.fixture(autouse=True, scope="session")
def _own_datasets_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests neither read nor write the developer's cache of data sets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets-cache"))
        datasets.disable_progress_bars()
        yield
        datasets.enable_progress_bars()


@pytest.fixture(scope="session")
def mllmu_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLLMU-Bench as on the hub."""
    return copies.mllmu(tmp_path_factory.mktemp("mllmu") / "copy")


@pytest.fixture(scope="session")
def mllmu(mllmu_folder: Path) -> BenchmarkData:
    """What is read of it for the smallest forget set."""
    return get_benchmark("mllmu").load(mllmu_folder, "forget_5")
