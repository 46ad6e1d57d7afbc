"""Inputs that are nearly right: bytes and JSON documents with a few things changed."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

HUGE = "9" * 5000
JUNK: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    2**31,
    10**18,
    0.5,
    -1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\ud800",
    "\x00",
    "../..",
    "/dev/zero",
    "a" * 5000,
    "2024-01-01",
    [],
    [None],
    ["x", 1],
    {},
    {"x": 1},
    {"type": "x"},
]
TEXTS = ["[" * 5000, '{"a":' * 5000, HUGE, f"[{HUGE}]", "null", "[]", "{}", '"x"', "", "{", "\ufeff{}", "1e999999"]


def mutated_bytes(content: bytes) -> st.SearchStrategy[bytes]:
    """``content`` with bytes changed, cut off, left out, repeated or put in."""
    place = st.integers(0, max(0, len(content) - 1))
    piece = st.one_of(st.binary(max_size=40), st.sampled_from([b"\x00" * 64, b"\xff" * 64, HUGE.encode(), b"[" * 5000]))

    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        found = bytearray(content)
        for _ in range(draw(st.integers(1, 4))):
            at, to = draw(place), draw(place)
            how = draw(st.sampled_from(["flip", "cut", "remove", "repeat", "insert"]))
            if how == "flip" and at < len(found):
                found[at] ^= draw(st.integers(1, 255))
            elif how == "cut":
                del found[at:]
            elif how == "remove":
                del found[min(at, to) : max(at, to)]
            elif how == "repeat":
                found[at:at] = found[min(at, to) : max(at, to)]
            elif how == "insert":
                found[at:at] = draw(piece)
        return bytes(found)

    return build()


def mutated_json(document: Any) -> st.SearchStrategy[bytes]:
    """A JSON document with values replaced, left out or added; or another text altogether."""
    return st.one_of(
        _changed(document),
        _changed(document),
        _changed(document),
        st.sampled_from([text.encode() for text in TEXTS]),
        mutated_bytes(json.dumps(document).encode()),
    )


@st.composite
def _changed(draw: st.DrawFn, document: Any) -> bytes:
    found = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(found))
        if not places:
            break
        holder, key = draw(st.sampled_from(places))
        if draw(st.integers(0, 4)) == 0:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(draw(st.sampled_from(JUNK)))  # a later change must not change the list
    # Lone surrogates are written as escapes, as a careless program would.
    return json.dumps(found, ensure_ascii=True).encode()


def _places(value: Any) -> Any:
    """Every (holder, key) in a document."""
    keys: Any = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])
