"""Tests lie where what they test lies: every package of kvw has a folder of tests with its name."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "kvw"
ACROSS = {"fuzz", "golden", "processes", "processors"}
"""Folders that hold tests, or what tests need, across packages."""


def test_every_package_has_a_folder_of_tests() -> None:
    packages = {file.parent.name for file in SOURCE.glob("*/__init__.py")}
    assert packages
    assert not {package for package in packages if not any((TESTS / package).rglob("test_*.py"))}


def test_every_folder_of_tests_is_one_of_a_package() -> None:
    folders = {file.parent.relative_to(TESTS) for file in TESTS.rglob("test_*.py")}
    assert not {str(folder) for folder in folders if not (SOURCE / folder).is_dir()} - ACROSS
