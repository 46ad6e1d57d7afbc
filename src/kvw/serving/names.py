"""Which names a server answers to, and which edits act under each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from kvw.errors import UserError
from kvw.serving import limits
from kvw.serving.refusals import Refusal, shortened

HEADER = "X-KVW-Edit"
"""Overrides the model that a request names."""
PLAIN = "none"
"""Stands for the model without any edit."""
JOIN = "+"
"""Between the names of edits that act one after the other."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Names:
    """The names of one server.

    The name of an edit, or of several joined by ``+``, stands for the model with them, in that order. ``none`` stands
    for the model without any. The model's own name stands for one of these, and never for the model without edits
    unless the operator says so twice, by ``default`` and by ``allow_plain``: who puts up edits wants them in force,
    and whoever reaches the server knows the model's name.

    Args:
        base: The model's own name.
        edits: The names of the edits. Without any there is but the model without edits to serve.
        default: What the model's own name stands for; None for the only thing there is, or nothing if there is more.
        allow_plain: Whether the model without any edit may be asked.

    Raises:
        UserError: There is nothing to serve, a name cannot be used, or the default is none of the names.
    """

    base: str
    edits: Sequence[str]
    default: str | None = None
    allow_plain: bool = False

    def __post_init__(self) -> None:
        check_something_served(self.edits, self.allow_plain)
        for name in self.edits:
            if not NAME.fullmatch(name) or name in (PLAIN, self.base):
                raise UserError(
                    "This cannot be the name of an edit.",
                    found=repr(name),
                    do=f"use letters, digits, '.', '_' and '-', and neither '{PLAIN}' nor the name of the model",
                )
        if self.default is not None:
            self._check_default(self.default)

    @property
    def default_name(self) -> str | None:
        """What the model's own name stands for; None for nothing."""
        if self.default is None and len(self.edits) <= 1:
            return self.edits[0] if self.edits else PLAIN
        return self.default

    @property
    def listed(self) -> list[str]:
        """Every name but those joined by ``+``; the model's own first."""
        own = [self.base] if self.default_name is not None else []
        return [*own, *self.edits, *([PLAIN] if self.allow_plain else [])]

    def chosen(self, model: str, headers: Sequence[str] = ()) -> tuple[str, ...]:
        """The edits that a request asks for, in the order in which they act; empty for none.

        Args:
            model: The name in the request.
            headers: The values of all headers ``X-KVW-Edit`` that came with it. One overrides ``model``.

        Raises:
            Refusal: No such name, the plain model is not served, or there are several headers.
        """
        if len(headers) > 1:  # a client's own beside the one that a gateway has added
            raise Refusal(400, f"There are {len(headers)} headers {HEADER}; send one.", parameter=HEADER)
        if headers:
            return self._parts(headers[0].strip(), HEADER)
        if model != self.base:
            return self._parts(model, "model")
        if self.default_name is None:
            raise self._unknown(model, "model", f"'{model}' stands for none of the edits here.")
        return self._parts(self.default_name, "model")

    def _parts(self, name: str, parameter: str) -> tuple[str, ...]:
        if name == PLAIN:
            if not self.allow_plain:
                raise Refusal(
                    403, "This server does not serve the model without an edit.", parameter=parameter, code="no_plain"
                )
            return ()
        if len(name) > limits.NAME:  # the search for a near one takes the square of its length
            what = f"The name of a model has at most {limits.NAME} characters; this one has {len(name)}."
            raise Refusal(404, what, parameter=parameter, code="model_not_found")
        parts = tuple(name.split(JOIN))
        for part in parts:
            if part not in self.edits:
                raise self._unknown(part, parameter, f"The model '{shortened(name)}' does not exist.")
        if len(set(parts)) < len(parts):
            raise self._unknown(name, parameter, f"The model '{shortened(name)}' names an edit twice.")
        return parts

    def _unknown(self, name: str, parameter: str, what: str) -> Refusal:
        listed = self.listed
        near = difflib.get_close_matches(name, listed, 1)
        hint = f" Did you mean '{near[0]}'?" if near and near[0] != name else ""
        return Refusal(
            404, f"{what}{hint} There are: {', '.join(listed)}.", parameter=parameter, code="model_not_found"
        )

    def _check_default(self, default: str) -> None:
        try:
            self._parts(default, "--default")
        except Refusal as error:
            plain = default == PLAIN
            raise UserError(
                f"The default '{default}' cannot be served.",
                found=error.message,
                do="add --allow-plain" if plain else "name an edit, several joined by '+', or 'none' (--allow-plain)",
            ) from error


def check_something_served(edits: Collection[str], allow_plain: bool) -> None:
    """Refuse to serve nothing but the model without edits unless the operator says so.

    Raises:
        UserError: There are no edits, and ``allow_plain`` is off.
    """
    if not edits and not allow_plain:
        raise UserError(
            "There is no edit to serve.",
            do="name one with --edit NAME=FILE, or serve the model without any with --allow-plain",
        )


def written(chosen: Sequence[str]) -> str:
    """The name for edits that :meth:`Names.chosen` gave."""
    return JOIN.join(chosen) or PLAIN
