"""What all files of the source keep to: the order of packages in docs/architecture.md, short functions, advice.

Nothing imports from a package that stands below its own.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from kvw.methods.registry import METHODS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "kvw"
BLOCK = re.search(r"^```\nsrc/kvw/\n(.*?)^```$", (ROOT / "docs" / "architecture.md").read_text(), re.M | re.S)
SMALL, PUBLIC = "small things", "public names"
"""The files beside the packages: those that all others use, and those that only users use."""
ORDER = [SMALL, *re.findall(r"^  (\w+)/ ", BLOCK[1] if BLOCK else "", re.M), PUBLIC]


def package(file: Path) -> str:
    first, *below = file.relative_to(SOURCE).parts
    return first if below else PUBLIC if first in ("__init__.py", "__main__.py") else SMALL


PLACE = re.compile(r"kvw(\.\w+)+(:\w+)?")


@cache
def target(name: str) -> Path | None:
    """The file of a module, or of the module that a name is of; None if it is not of kvw."""
    if name.partition(".")[0] != "kvw":
        return None
    parts = name.split(".")[1:]
    found = [SOURCE.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]
    files = (file for path in found for file in (path.with_suffix(".py"), path / "__init__.py"))
    return next(file for file in files if file.is_file())


def imported(text: str) -> Iterator[tuple[int, str]]:
    """Line and full name of all that is imported, wherever it stands; names of modules in strings are imported, too."""
    for node in nodes(text):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports name the whole module"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PLACE.fullmatch(node.value):
            yield node.lineno, node.value.partition(":")[0]


@cache
def nodes(text: str) -> list[ast.AST]:
    """All that a file is made of that a rule looks at; parsed once for all of them."""
    kinds = (ast.Import, ast.ImportFrom, ast.Constant, ast.Call, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, (*kinds, ast.Module))]


def back_arrows(file: Path, text: str) -> list[str]:
    """Every import of a file that goes to a package below its own."""
    own = ORDER.index(package(file))
    targets = ((line, name, target(name)) for line, name in imported(text))
    return [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for line, name, found in targets
        if found is not None and ORDER.index(package(found)) > own
    ]


def test_the_list_names_every_package_once() -> None:
    folders = sorted(path.name for path in SOURCE.iterdir() if any(path.glob("*.py")))
    assert sorted(ORDER[1:-1]) == folders


@pytest.mark.thorough
def test_no_package_imports_from_one_below_it() -> None:
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 400
    assert [arrow for file in files for arrow in back_arrows(file, file.read_text())] == []


def test_nothing_outside_the_methods_imports_from_the_folder_of_one() -> None:
    """Commands ask a method by its object. What they share with one stands beside the folders, or above."""
    folders = {".".join(place.partition(":")[0].split(".")[:3]) for place in METHODS.values()}
    outside = [file for file in SOURCE.rglob("*.py") if package(file) not in ("methods", PUBLIC)]
    assert "kvw.methods.subspace" in folders
    assert [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in sorted(outside)
        for line, name in imported(file.read_text())
        if ".".join(name.split(".")[:3]) in folders
    ] == []


NOT_THE_METHOD = {
    # The program: what it is called on a command line, its folder, its logger, the mark and the tag that it leaves.
    "kvw": [
        *("building/asking.py", "cache.py", "cli/__init__.py", "cli/command.py", "cli/data/build.py", "known.py"),
        "cli/worker.py",
        *(
            "mark.py",
            "progress.py",
            "edits/adapters.py",
            "edits/edit.py",
            "pages/card.py",
            "runs/evidence.py",
            "runs/writing.py",
        ),
        "serving/replies.py",
    ],
    # The kind of edit, by which its file is read.
    "steering": ["edits/steering.py"],
}
"""Where a word that is a method's name, too, means something else."""


NAMES = re.compile(
    r"(?<![\w.-])({})(?![\w-])|^kvw$|\bmethod kvw\b".format("|".join(name for name in METHODS if name != "kvw"))
)


def named_methods(text: str) -> list[tuple[int, str]]:
    """Line and name of every method that a string names: as all of it, as a word of a message or help, or in a command.

    The name of the program counts only as all of a string, and as ``method kvw``. Of docstrings only those count that
    stand under a field, since they are help texts; the others speak of the field's techniques.
    """
    bodies = [node.body for node in nodes(text) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    prose = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
    strings = [
        (node.lineno, node.value)
        for node in nodes(text)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    ]
    return [(line, (found[1] or "kvw")) for line, value in strings for found in NAMES.finditer(value)]


def test_nothing_outside_the_methods_names_one() -> None:
    """What differs between methods is a property of their objects."""
    outside = [file for file in sorted(SOURCE.rglob("*.py")) if package(file) not in ("methods", PUBLIC)]
    found = {
        (name, str(file.relative_to(SOURCE))): line
        for file in outside
        for line, name in named_methods(file.read_text())
    }
    allowed = {(name, file) for name, files in NOT_THE_METHOD.items() for file in files}
    assert {place: line for place, line in found.items() if place not in allowed} == {}
    assert allowed <= set(found)


@pytest.mark.parametrize(
    "text",
    [
        'get_method("leace")',
        'if method == "kvw":\n    pass',
        'hint = f"kvw erase {model} --method kvw"',
        'class Options:\n    """Of the run."""\n    dose: float\n    """npo, subspace: the dose."""',
        'print("after subspace weakening")',
    ],
)
def test_a_method_that_is_named_is_seen(text: str) -> None:
    assert named_methods(text)


@pytest.mark.parametrize(
    "text", ["import kvw.methods", '"""Second moments for subspace weakening."""', 'run("kvw erase")']
)
def test_other_words_name_no_method(text: str) -> None:
    assert not named_methods(text)


@pytest.mark.parametrize(
    "text",
    [
        "from kvw.runs.apply import apply",
        "import kvw.runs",
        "from kvw import runs",
        "import kvw",
        "from kvw import __version__",
        "def late():\n    from kvw.bench import run",
        "if TYPE_CHECKING:\n    from kvw.evaluation import Evaluation",
        "TABLE = {'toy': 'kvw.toy.items'}",
        "TABLE = {'kvw': 'kvw.methods.kvw:METHOD'}",
    ],
)
def test_an_import_from_below_is_seen(text: str) -> None:
    assert len(back_arrows(SOURCE / "data" / "readers.py", text)) == 1


@pytest.mark.parametrize(
    "text", ["from kvw.data import Example", "from kvw.errors import UserError", "import torch", "HUB = 'kvw.methods'"]
)
def test_what_stands_above_or_elsewhere_may_be_imported(text: str) -> None:
    assert back_arrows(SOURCE / "runs" / "apply.py", text) == []


def is_there(name: str) -> bool:
    """Whether a full name is that of a module of kvw, or one that its module mentions; true of other packages."""
    place = target(name)
    if place is None:
        return True
    parts = [part for part in place.relative_to(SOURCE).with_suffix("").parts if part != "__init__"]
    found, (module, _, last) = ".".join(["kvw", *parts]), name.rpartition(".")
    return found == name or (found == module and re.search(rf"\b{last}\b", place.read_text()) is not None)


def test_benchmarks_import_what_is_there() -> None:
    files = sorted((ROOT / "benchmarks").glob("*.py"))
    assert len(files) > 5
    names = [(file.name, line, name) for file in files for line, name in imported(file.read_text())]
    assert [found for found in names if not is_there(found[2])] == []
    assert not is_there("kvw.methods.settings.KvwSettings")
    assert not is_there("kvw.runs.unlearning.labels_of")


def too_long(text: str, function: int = 60, file: int = 400) -> list[str]:
    """What has more lines than that: the file itself, and functions with their docstrings but without decorators."""
    functions = [node for node in nodes(text) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
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


ERRORS = {"UserError", "Damaging", "LostProcess", "Unreadable", "Unwritable"}


def without_advice(text: str) -> list[str]:
    """The beginnings of the mistakes that a file raises without saying what to do."""
    calls = [node for node in nodes(text) if isinstance(node, ast.Call) and node.args]
    raised = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ERRORS]
    return [ast.unparse(call.args[0]) for call in raised if not {one.arg for one in call.keywords} & {"do", None}]


def test_every_mistake_says_what_to_do():
    found = {str(file): without_advice(file.read_text()) for file in SOURCE.rglob("*.py")}
    assert len(found) > 400
    assert {file: said for file, said in found.items() if said} == {}


def test_a_mistake_without_advice_is_seen():
    said = "raise UserError('It is wrong.', found='x')\nraise Damaging('All is lost.', do='keep it')"
    assert without_advice(said) == ["'It is wrong.'"]
