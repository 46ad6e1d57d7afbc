"""``python -m kvw.bench.lmms``: the harness lmms-eval on a model with an edit attached.

Their command with one more model, ``kvw-edited``, for tasks that ask for a reply to a text with or without pictures.

usage: python -m kvw.bench.lmms eval --model kvw-edited --model_args pretrained=MODEL,edit=EDIT --tasks TASK ...
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from kvw.bench.harness import edited_model
from kvw.data.example import Example
from kvw.data.images import png
from kvw.errors import UserError
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.loaded import Loaded
from kvw.exit_codes import program
from kvw.optional import optional

MODEL = "kvw-edited"
LONGEST = 256
"""Tokens of a reply where a task does not say it."""


def __getattr__(name: str) -> Any:
    """The class that the harness looks for in this module; it is made of theirs, which not everyone has."""
    if name == "EditedModel":
        return _edited_model_class()
    raise AttributeError(name)


def replies(loaded: Loaded, requests: Sequence[tuple[str, Sequence[Any], Mapping[str, Any]]]) -> list[str]:
    """Greedy replies, cut where the task says.

    Args:
        loaded: From :func:`kvw.bench.harness.edited_model`.
        requests: Text, pictures (of PIL) and what the task says of generating, of each.

    Raises:
        UserError: A task wants samples, or what it asks cannot be shown to the model.
    """
    found = [""] * len(requests)
    by_length: dict[int, list[int]] = {}
    for place, (_, _, said) in enumerate(requests):
        if said.get("do_sample") and said.get("temperature"):
            raise UserError("A task wants replies drawn at random.", do="choose a task that takes the likeliest reply")
        by_length.setdefault(int(said.get("max_new_tokens", LONGEST)), []).append(place)
    for length, places in by_length.items():
        examples = [
            Example(requests[place][0], "-", tuple(png(picture) for picture in requests[place][1]), f"request {place}")
            for place in places
        ]
        prepared = loaded.prepare(examples, length)
        texts = generate_answers(loaded.model, loaded.processor, prepared, max_new_tokens=length)
        for place, text in zip(places, texts, strict=True):
            found[place] = _cut(text, requests[place][2].get("until", ()))
    return found


def _cut(text: str, until: str | Sequence[str]) -> str:
    for end in [until] if isinstance(until, str) else until:
        text = text.split(end)[0] if end else text
    return text


def _edited_model_class() -> type[Any]:
    base: type[Any] = _module("lmms_eval.api.model").lmms

    class EditedModel(base):  # type: ignore[misc]
        def __init__(self, pretrained: str, edit: str = "", **_: Any) -> None:
            super().__init__()
            self.loaded = edited_model(pretrained, edit)

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            asked = []
            for text, said, pictures, document, task, split in (request.args for request in requests):
                asked.append((text, pictures(self.task_dict[task][split][document]) or [], said))
            return replies(self.loaded, asked)

        def loglikelihood(self, requests: Sequence[Any]) -> Any:
            raise _only_replies()

        def generate_until_multi_round(self, requests: Sequence[Any]) -> Any:
            raise _only_replies()

    return EditedModel


def _only_replies() -> UserError:
    return UserError(
        "The task asks for probabilities, or for several replies in turn.",
        do="choose a task whose output_type is generate_until, or let lmms-eval read what kvw apply writes",
    )


def _module(name: str) -> Any:
    return optional(name, use="Their harness for pictures needs", package="""lmms-eval "filelock<3.21\"""")


@program
def main() -> None:
    """The harness's command line."""
    models = _module("lmms_eval.models")
    manifest = _module("lmms_eval.models.registry_v2").ModelManifest
    models.MODEL_REGISTRY_V2.register_manifest(manifest(MODEL, simple_class_path="kvw.bench.lmms.EditedModel"))
    _module("lmms_eval.cli.dispatch").main()


if __name__ == "__main__":
    sys.exit(main())
