"""What an edit is made from, and what it must reach; importing this loads nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvw.data import Example
from kvw.errors import UserError
from kvw.methods.method import Method
from kvw.methods.registry import DEFAULT, get_method
from kvw.retain import KEEP, SOURCES
from kvw.runs.earlier import NOBODY, WhoAsked
from kvw.settings import check_at_least

if TYPE_CHECKING:
    from kvw.measuring.statistics import Statistics

FLOOR = 0.9
"""The share of what must stay that an edit must leave whose strength was fixed by hand: less is a wreck."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """By which method an edit is made, and what must stay.

    Args:
        method: Its name, or the place of its object.
        settings: Settings of the method; None for its defaults.
        keep: The share of what must stay, on questions that the method has not seen and of plain text.
        choose: Whether the strength is chosen; None: unless the settings fix it (``Method.dose``).
        sources: Sources of what must stay beside a retain set, see :data:`kvw.retain.SOURCES`.
        write_damaged: Whether an edit is taken that loses what must stay.
        max_new_tokens: The longest reply to a question, in tokens.

    Raises:
        UserError: There is no such method, the settings are another's, or a number makes no sense.
    """

    method: str = DEFAULT
    settings: Any = None
    keep: float = KEEP
    choose: bool | None = None
    sources: Sequence[str] = SOURCES
    write_damaged: bool = False
    max_new_tokens: int = 50

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", self.made_by.settings_from(self.settings))
        if self.choose and self.made_by.scaling(self.settings) is None:
            raise UserError(
                f"No strength can be chosen: with these settings method {self.method} offers a single edit.",
                found="--strength auto",
                do="leave it out, or take other settings",
            )
        check_at_least("--max-new-tokens", self.max_new_tokens, 1)
        if not 0 < self.keep <= 1:  # NaN is refused too
            raise UserError(
                "--keep must lie above 0 and at most at 1.", found=str(self.keep), do=f"{KEEP} is the default"
            )
        if unknown := [name for name in self.sources if name not in SOURCES]:
            raise UserError(
                "There is no such source of retain examples.", found=unknown[0], do=f"use: {', '.join(SOURCES)}"
            )

    @property
    def made_by(self) -> Method[Any]:
        """The method."""
        return get_method(self.method)

    @property
    def chooses(self) -> bool:
        """Whether the strength is chosen, and not fixed by settings."""
        if self.choose is not None:
            return self.choose
        method = self.made_by
        return method.scaling(self.settings) is not None and not method.fixes_strength(self.settings)

    @property
    def floor(self) -> float:
        """The share of what must stay below which nothing is written."""
        return self.keep if self.chooses else min(self.keep, FLOOR)

    @property
    def needs_retain(self) -> bool:
        """Whether the method does something with the retain set."""
        return self.made_by.needs_retain(self.settings)


@dataclass(frozen=True, kw_only=True)
class Sets:
    """What is to be forgotten, and what is known of what must stay.

    Args:
        forget: The forget set.
        retain: The retain set without what the forget set is about; empty if its statistics were given instead, or
            without the retain contrast.
        retain_statistics: Given statistics of the retain set.
        neighbours: Whom or what the forget questions are asked about beside; None leaves it to the model.
        earlier: Who was in earlier requests.
    """

    forget: list[Example]
    retain: Sequence[Example]
    retain_statistics: Statistics | None = None
    neighbours: list[str] | None = None
    earlier: WhoAsked = NOBODY
