"""Packages that only some metrics need."""

from __future__ import annotations

from functools import partial

from kvw.optional import optional as optional_of

optional = partial(optional_of, use="This metric needs", extra="bench")
"""Import a module of the extra ``bench`` when it is first needed."""
