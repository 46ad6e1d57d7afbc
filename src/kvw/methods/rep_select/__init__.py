"""RepSelect: one backward pass, without the components that everything uses; see docs/methods/rep-select.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvw.methods.method import LoadedModel
from kvw.methods.rep_select.settings import RepSelectSettings
from kvw.methods.trained import Trained
from kvw.progress import Progress

if TYPE_CHECKING:
    from kvw.data import Example
    from kvw.training.result import Result


class RepSelect(Trained[RepSelectSettings]):
    """Changes all maps of the FFNs in one step."""

    name = "rep-select"
    settings = RepSelectSettings
    dose = ("rate",)
    stronger = "a larger --set size, or more --layers"
    firmness = "the abstract and the authors' code; without its adversarial adapters"
    stage = "gradients and their components"

    def needs_retain(self, settings: RepSelectSettings) -> bool:
        """Only if its gradient is asked for."""
        return settings.of == "retain"

    def idle(self, recorded: Mapping[str, Any]) -> set[str]:
        """The size where a rate is given, and what says how to collapse where nothing is."""
        without = {"size"} if recorded.get("rate") is not None else set()
        return without | ({"sides", "of", "components", "floor"} if recorded.get("collapse") == "none" else set())

    def train(
        self,
        loaded: LoadedModel,
        forget: Sequence[Example],
        retain: Sequence[Example],
        settings: RepSelectSettings,
        *,
        state: Path | None = None,
        progress: Progress,
    ) -> Result:
        """See :func:`kvw.methods.rep_select.method.rep_select`; nothing is kept in a state."""
        from kvw.methods.rep_select.method import rep_select

        return rep_select(loaded, forget, retain, settings, progress)


METHOD = RepSelect()
