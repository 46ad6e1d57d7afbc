"""The table of methods: what it lists, what keeps to it, and that nobody else knows a method by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kvw.errors import UserError
from kvw.methods.registry import DEFAULT, METHODS, get_method

SOURCE = Path(__file__).parents[2] / "src" / "kvw"
ALLOWED = {
    # The default's name, where importing the table would take too long.
    "cli/options.py": {"subspace"},
    # The demo compares these two.
    "runs/demo.py": {"kvw", "subspace"},
    # The program's own name, and a kind of edit, not a method.
    "edits/steering.py": {"steering"},
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_name_of_its_entry_and_says_what_it_is(name):
    method = get_method(name)
    assert method.name == name
    assert len(method.summary) > 20
    assert method.summary.endswith(".")  # a whole sentence
    assert "\n" not in method.summary
    assert method.accepts(method.read({}))
    assert set(method.dose) <= {field for kind in method.setting_classes for field in kind.__dataclass_fields__}


def test_no_method_is_known_by_name_but_in_its_folder_and_the_table():
    names = "|".join(sorted(METHODS, key=len, reverse=True))
    found = []
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE)
        if place.parts[0] == "methods":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            for name in re.findall(rf"""(?:==|!=|in|method=|get_method\(|Method\()\s*\(?["']({names})["']""", line):
                if name not in ALLOWED.get(place.as_posix(), ()):
                    found.append(f"{place}:{number}: {line.strip()}")
    assert found == []


def test_the_default_is_in_the_table():
    assert DEFAULT in METHODS


def test_the_closest_name_is_proposed():
    with pytest.raises(UserError, match="did you mean 'grad-diff'"):
        get_method("Grad_Diff")
