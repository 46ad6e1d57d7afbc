"""The frame that all pages share."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kvw._version import __version__

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Verdict:
    """What a page says first.

    Args:
        tone: All as it should be, in part, not, or nobody knows; it colours the mark.
        mark: The same in one to three words, because a colour cannot be read aloud.
        sentences: In words; the first is shown large.
    """

    tone: Literal["good", "part", "bad", "unknown"]
    mark: str
    sentences: Sequence[str]


def page(template: str, *, title: str, verdict: Verdict, confidential: str = "", **content: Any) -> str:
    """Fill a template of ``templates/`` that extends ``base.html``.

    The frame shows title and verdict; the template fills the blocks ``facts`` and ``content``, with the macros of
    ``parts.html`` for sections, tables and bars. Whatever is passed in is escaped. The page has no scripts, and its
    content security policy forbids them and every request to the network.

    Args:
        template: Its name, ``run.html`` say.
        title: Title of the page.
        verdict: What the page says first.
        confidential: A sentence that says why the page is to be kept secret; empty if it need not be.
        content: What the template shows; a name that it asks for and nobody passed is an error.

    Returns:
        The page: one HTML file that refers to nothing outside of it.
    """
    filled = _environment().get_template(template)
    return filled.render(**content, title=title, verdict=verdict, confidential=confidential, kvw_version=__version__)


@functools.cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"share": share, "number": number, "duration": duration, "size": size}
    return made


DASH = "\N{EN DASH}"
"""What was not measured."""


def share(value: float | None, digits: int = 0) -> str:
    """A share in percent; a dash for one that was not measured."""
    return DASH if value is None else f"{value * 100:.{digits}f}\N{NO-BREAK SPACE}%"


def number(value: float | None) -> str:
    """A number to read, in four significant digits; a dash for one that was not measured."""
    if value is None:
        return DASH
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """Bytes as a person says them."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1000**power:
            return f"{count / 1000**power:.3g} {unit}"
    return f"{count} bytes"
