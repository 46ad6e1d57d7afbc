"""``python -m kvw.bench.harness``: EleutherAI's evaluation harness on a model with an edit attached.

Their command with two more models: ``kvw-text``, and ``kvw-pictures`` for pictures with text.

usage: python -m kvw.bench.harness run --model kvw-text --model_args pretrained=MODEL,edit=EDIT --tasks TASK ...
"""

from __future__ import annotations

import sys
from typing import Any

from kvw.edits import load_edit
from kvw.evaluation.loaded import Loaded
from kvw.exit_codes import program
from kvw.models.checkpoint import find_checkpoint
from kvw.optional import optional
from kvw.progress import SILENT
from kvw.runs.weights import check_weights

MODELS = {"kvw-text": ("huggingface", "HFLM"), "kvw-pictures": ("hf_vlms", "HFMultimodalLM")}
"""By the name behind ``--model``: the harness's own class of such models, and its module."""


def edited_model(pretrained: str, edit: str = "") -> Loaded:
    """A model as the harness is to ask it.

    Args:
        pretrained: What other commands call MODEL.
        edit: An edit file of it; none for the model as it is.

    Raises:
        UserError: There is no such model or edit, or the edit was made from other weights.
    """
    loaded = Loaded.load(find_checkpoint(pretrained))
    if edit:
        found = load_edit(edit)
        check_weights(found, loaded.fingerprint, SILENT, other_weights=False)
        found.attach(loaded.model)  # for as long as the process asks it
    return loaded


def register() -> None:
    """Make :data:`MODELS` known to the harness.

    Raises:
        UserError: It is not installed.
    """
    registry = _module("lm_eval.api.registry")
    for name, (module, kind) in MODELS.items():
        registry.register_model(name)(_subclass(getattr(_module(f"lm_eval.models.{module}"), kind)))


def _subclass(kind: type[Any]) -> type[Any]:
    class Edited(kind):  # type: ignore[misc]
        def __init__(self, pretrained: str, edit: str = "", **given: Any) -> None:
            loaded = edited_model(pretrained, edit)
            super().__init__(pretrained=loaded.model, tokenizer=loaded.processor.tokenizer, **given)

    return Edited


def _module(name: str) -> Any:
    return optional(name, use="Their evaluation harness needs", extra="harness")


@program
def main() -> None:
    """The harness's command line."""
    register()
    _module("lm_eval.__main__").cli_evaluate()


if __name__ == "__main__":
    sys.exit(main())
