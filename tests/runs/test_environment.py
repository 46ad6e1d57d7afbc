"""What kvw says of its surroundings, and that the tested versions are those of pyproject.toml."""

from __future__ import annotations

import builtins
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from kvw.runs import environment
from kvw.runs.environment import Package, cache, devices, packages

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
ENTRIES = [
    Requirement(entry)
    for group in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for entry in group
    if not entry.startswith("kvw[")
]
NAMES = sorted({canonicalize_name(entry.name) for entry in ENTRIES})
KNOWN = SimpleNamespace(name="X1", total_memory=3 * 2**30)
INTERNALS = ("accelerate", "peft", "transformers")


def pins(file):
    lines = [line for line in (TOP / "requirements" / file).read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==", 1) for line in lines)


@pytest.mark.parametrize("file", ["oldest.txt", "tested.txt"])
def test_tested_versions_are_names_and_exact_versions_only(file):
    for name, version in pins(file).items():
        assert canonicalize_name(name) == name
        assert str(Version(version))
        assert not Version(version).local


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_floors_are_those_that_are_tested(entry):
    floors = [Version(part.version) for part in entry.specifier if part.operator == ">="]
    assert [Version(pins("oldest.txt")[canonicalize_name(entry.name)])] == floors


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_the_newest_tested_version_is_allowed_and_the_next_is_not_where_internals_are_used(entry):
    newest = Version(pins("tested.txt")[canonicalize_name(entry.name)])
    assert newest in entry.specifier
    following = Version(f"{newest.major}.{newest.minor + 1}")
    assert (following in entry.specifier) == (entry.name not in INTERNALS)


def test_only_direct_dependencies_are_in_the_oldest():
    assert sorted(pins("oldest.txt")) == NAMES


def test_pins_of_one_kind_of_machine_are_left_to_torch():
    assert not [name for name in pins("tested.txt") if name.startswith(("nvidia", "cuda", "triton"))]


def test_the_source_distribution_has_what_its_commands_need():
    targets = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    contents = targets["sdist"]["include"]
    assert {"src", "tests", "benchmarks", "recipes", "requirements", "Makefile"} <= set(contents)
    assert all((TOP / name).exists() for name in contents)


def test_every_package_comes_with_its_tested_versions():
    assert [package.name for package in packages()] == NAMES
    assert all(Version(package.oldest) <= Version(package.newest) for package in packages())


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ("1.2", ""),
        ("1.3.1", ""),
        ("1.10", ""),
        ("1.10+cpu", ""),
        ("1.1.9", "older than tested"),
        ("1.2.dev0", "older than tested"),
        ("1.10.1", "newer than tested"),
        ("2", "newer than tested"),
        (None, "not installed"),
    ],
)
def test_what_is_outside_of_the_tested_range_is_marked(version, verdict):
    package = Package(name="x", version=version, oldest="1.2.0", newest="1.10")
    assert package.verdict == verdict
    assert package.model_dump()["verdict"] == verdict


def test_the_cache_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "here"))
    assert (cache().files, cache().size) == (0, 0)
    for name, size in (("a", 10), ("b/c", 300)):
        file = tmp_path / "here" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(size))
    found = cache()
    assert (found.folder, found.files, found.size) == (str(tmp_path / "here"), 2, 310)


def test_the_cpu_is_among_the_devices():
    found = devices()
    assert found.names[0].startswith("cpu: ")
    assert not found.error


@pytest.mark.parametrize(
    ("module", "described"),
    [
        (SimpleNamespace(get_device_properties=lambda _: KNOWN), ": X1, 3.0 GiB"),
        (SimpleNamespace(), ""),
    ],
)
def test_accelerators_come_with_model_and_memory_if_torch_tells_them(monkeypatch, module, described):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "get_device_module", lambda kind: module)
    assert devices().names[1:] == (f"xpu:0{described}", f"xpu:1{described}")


def test_a_broken_torch_is_told(monkeypatch):
    real = builtins.__import__

    def broken(name, *arguments, **named):
        if name == "torch":
            raise OSError("libtorch.so: cannot open shared object file\nmore")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", broken)
    found = devices()
    monkeypatch.undo()
    assert found.error == "libtorch.so: cannot open shared object file"
    assert len(found.names) == 1


def test_a_package_that_is_not_there_has_no_version(monkeypatch):
    def missing(name):
        raise environment.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(environment.metadata, "version", missing)
    assert {package.verdict for package in packages()} == {"not installed"}
