"""Names that must be known, and texts that messages quote."""

from __future__ import annotations

import pytest

from kvw.errors import UserError
from kvw.known import known
from kvw.printable import printable, shortened

NAMES = {"subspace": 1, "k-l": 2}


def test_a_known_name_is_given_back() -> None:
    assert known("k-l", NAMES, "method") == "k-l"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "subspac",
            ["There is no method 'subspac' in kvw.", "methods: subspace, k-l", "did you mean 'subspace'?"],
        ),
        ("K_L", ["did you mean 'k-l'?"]),
        ("xyz", ["choose one of subspace, k-l"]),
        ("x" * 500, ["x" * 120 + " ...", "choose one of"]),
    ],
)
def test_an_unknown_name_is_answered_with_the_closest(name: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        known(name, NAMES, "method")
    assert all(word in str(caught.value) for word in words)


def test_where_there_are_no_names_none_is_proposed() -> None:
    with pytest.raises(UserError, match=r"in d\.csv(.|\n)*\(none\)"):
        known("a", {}, "column", "d.csv")


def test_what_moves_a_terminal_is_written_as_an_escape() -> None:
    assert printable("plain, é 图") == "plain, é 图"
    assert printable("a\x1b[2Jb\n\u202ec") == r"a\x1b[2Jb\n\u202ec"


def test_only_long_texts_are_shortened() -> None:
    assert shortened("a" * 120) == "a" * 120
    assert shortened("abcdef", 3) == "abc ..."
