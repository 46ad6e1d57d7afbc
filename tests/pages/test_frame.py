"""The frame of all pages: it escapes, it refers to nothing outside, and it forbids scripts."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from jinja2 import DictLoader, UndefinedError

from kvw.pages import Verdict, page
from kvw.pages.frame import TEMPLATES, _environment, duration, number, share, size

EVIL = "</script><b onload=x>&\"'{{ 7 * 7 }}"
GOOD = Verdict("good", "Passed", ["Nothing was found.", "9 attacks were tried."])


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template of another verb beside the shipped ones."""
    shipped = {path.name: path.read_text() for path in TEMPLATES.iterdir()}
    table = '{% extends "base.html" %}{% import "parts.html" as parts %}'
    table += "{% block content %}{{ parts.table(columns, rows, 1) }}{% endblock %}"
    made = _environment().overlay(loader=DictLoader(shipped | {"own.html": table}))
    monkeypatch.setattr("kvw.pages.frame._environment", lambda: made)


@pytest.mark.usefixtures("own")
def test_a_page_of_another_verb() -> None:
    text = page(
        "own.html",
        title="Audit",
        verdict=GOOD,
        confidential="It names attacks.",
        columns=["attack", "found"],
        rows=[["by name", "0"], ["hints", "1"]],
    )
    assert text.startswith("<!doctype html>")
    for part in ("<h1>Nothing was found.</h1>", "9 attacks were tried.", "Passed", "It names attacks."):
        assert part in text
    assert '<tr class="chosen">' in text
    assert '<td data-title="found">1</td>' in text


@pytest.mark.usefixtures("own")
def test_whatever_is_passed_in_is_escaped() -> None:
    bad = Verdict("bad", EVIL, [EVIL, EVIL])
    text = page("own.html", title=EVIL, verdict=bad, confidential=EVIL, columns=[EVIL, EVIL], rows=[[EVIL, EVIL]])
    assert "<b onload" not in text
    assert "</script" not in text
    assert "49" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)
    assert text.count("&lt;/script&gt;") == 11


@pytest.mark.usefixtures("own")
def test_a_page_is_one_file_without_scripts() -> None:
    text = page("own.html", title="t", verdict=GOOD, columns=["a"], rows=[["1"]])
    assert "script" not in text.replace("runs no scripts", "")
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<link|<iframe|<object", text)
    assert "default-src 'none'" in text
    assert "Confidential" not in text


@pytest.mark.usefixtures("own")
def test_a_name_that_nobody_passed_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        page("own.html", title="t", verdict=GOOD, columns=["a"])


class Balance(HTMLParser):
    """Fails where an element is closed that is not open."""

    VOID = frozenset({"meta", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def balanced(text: str) -> bool:
    found = Balance()
    found.feed(text)
    return not found.open


@pytest.mark.usefixtures("own")
def test_elements_are_closed() -> None:
    assert balanced(page("own.html", title="t", verdict=GOOD, columns=["a"], rows=[["1"]]))


def test_numbers_are_written_for_people() -> None:
    assert [number(1234567), number(0.00012344), number(3.0), number(None)] == ["1,234,567", "0.0001234", "3", "–"]
    assert [duration(1.25), duration(90), duration(7200)] == ["1.2 s", "1.5 min", "2.0 h"]
    assert [size(12), size(2_500), size(3_400_000), size(5 * 10**9)] == ["12 bytes", "2.5 kB", "3.4 MB", "5 GB"]
    assert share(0.985, 1) == "98.5\N{NO-BREAK SPACE}%"
