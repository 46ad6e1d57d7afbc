"""What is published is whole: wheel and sdist, and the licences of what ships; `make release-check` builds them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import kvw
from kvw._version import __version__

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "kvw"
DIST = os.environ.get("KVW_DIST")
built = [pytest.mark.slow, pytest.mark.skipif(not DIST, reason="make release-check builds what is looked at")]


def files(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in found}


def in_the_package() -> set[str]:
    """Every file that an installed kvw has."""
    more = {f"{name}/{file}" for name in ("recipes", "requirements") for file in files(ROOT / name)}
    return {f"kvw/{file}" for file in files(SOURCE) | more}


def test_the_licence_of_everything_that_ships_is_told():
    rows = re.findall(r"^\| `([^`]+)` \|", (SOURCE / "LICENCES.md").read_text(), re.MULTILINE)
    shipped = {name.removeprefix("kvw/") for name in in_the_package() if not name.endswith(".py")}
    untold = {name for name in shipped if not any(name.startswith(row) for row in rows)}
    assert untold == {"LICENCES.md", "py.typed"}
    assert all(any(name.startswith(row) for name in shipped) for row in rows)


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/kvw/_version.py"
    written = rf"version.{{0,4}}=\s*[\"']{re.escape(__version__)}[\"']"
    places = [path for path in ROOT.glob("src/**/*.py") if re.search(written, path.read_text())]
    assert [path.name for path in places] == ["_version.py"]
    assert kvw.__version__ == __version__


def only(pattern: str) -> Path:
    (path,) = Path(str(DIST)).glob(pattern)
    return path


class TestBuilt:
    pytestmark = built

    def test_the_wheel_has_every_file(self):
        with zipfile.ZipFile(only("*.whl")) as wheel:
            names = {name for name in wheel.namelist() if not name.startswith(f"kvw-{__version__}.dist-info/")}
            assert names == in_the_package()
            info = f"kvw-{__version__}.dist-info"
            assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
            assert "kvw = kvw.cli:main" in wheel.read(f"{info}/entry_points.txt").decode()
            metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert metadata["Version"] == __version__
        assert metadata["License-Expression"] == "Apache-2.0"
        assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
        assert (ROOT / "README.md").read_text() in metadata.get_payload()

    def test_the_sdist_has_every_file_and_makes_the_same_wheel(self, tmp_path):
        with tarfile.open(only("*.tar.gz")) as sdist:
            sdist.extractall(tmp_path, filter="data")
        folder = tmp_path / f"kvw-{__version__}"
        tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert not {name for name in tracked.split() if not name.startswith(".")} - files(folder)
        subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=folder, check=True)
        (again,) = (folder / "dist").glob("*.whl")
        with zipfile.ZipFile(only("*.whl")) as first, zipfile.ZipFile(again) as second:
            for name in first.namelist():
                assert first.read(name) == second.read(name), name

    def test_the_installed_wheel_runs_outside_of_the_sources(self, tmp_path):
        venv.create(tmp_path / "venv", with_pip=False)
        (packages,) = (tmp_path / "venv/lib").glob("python*/site-packages")
        with zipfile.ZipFile(only("*.whl")) as wheel:
            wheel.extractall(packages)
        (others,) = {Path(str(pytest.__file__)).parents[1]}
        (packages / "others.pth").write_text(f"{others}\n")  # what kvw needs, from the environment of the tests
        python = tmp_path / "venv/bin/python"
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

        def said(*command: str) -> str:
            return subprocess.run(
                command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
            ).stdout

        assert said(str(python), "-c", "import kvw; print(kvw.__file__)").startswith(str(packages))
        assert said(str(python), "-m", "kvw", "--version").strip() == __version__
        assert "subspace" in said(str(python), "-m", "kvw", "methods")
        assert said(str(python), "-m", "kvw", "bench", "validate", str(packages / "kvw/recipes/toy.toml"))
