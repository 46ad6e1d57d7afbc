"""CHIP: sibling-differential directions, projected out of what FFN maps write; see docs/methods/chip.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvw.methods.chip.settings import ChipSettings
from kvw.methods.method import LoadedModel
from kvw.methods.trained import Trained
from kvw.progress import Progress

if TYPE_CHECKING:
    from kvw.data import Example
    from kvw.training.result import Result


class Chip(Trained[ChipSettings]):
    """Changes the maps of the last FFNs in one step."""

    name = "chip"
    settings = ChipSettings
    stronger = "a larger --set share, or more --layers"
    firmness = "the abstract and the authors' code; its hierarchy is cut to subjects and facts"
    stage = "measuring and projecting"

    def train(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: ChipSettings,
        *,
        state: Path | None = None,
        progress: Progress,
    ) -> Result:
        """See :func:`kvw.methods.chip.method.chip`; nothing is kept in a state."""
        from kvw.methods.chip.method import chip

        return chip(loaded, forget, retain, settings, progress)


METHOD = Chip()
