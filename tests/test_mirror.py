"""How the source is cut: short functions and files, and for every package of kvw a folder of tests with its name."""

from __future__ import annotations

import ast
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


def too_long(text: str, function: int = 60, file: int = 400) -> list[str]:
    """What has more lines than that: the file itself, and functions with their docstrings but without decorators."""
    functions = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    sizes = [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in functions]
    lines = len(text.splitlines())
    return [name for name, size in sizes if size > function] + (["the file"] if lines > file else [])


def test_functions_and_files_are_short() -> None:
    found = {str(file.relative_to(SOURCE)): too_long(file.read_text()) for file in SOURCE.rglob("*.py")}
    assert {file: names for file, names in found.items() if names} == {}


def test_what_is_too_long_is_seen() -> None:
    text = "class A:\n    async def b(self):\n        x = 1\n        def c():\n            return 1\n"
    assert too_long(text, 4) == []
    assert too_long(text, 3) == ["b"]
    assert too_long(text, 1, 4) == ["b", "c", "the file"]
