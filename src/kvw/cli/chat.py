"""``kvw chat``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kvw.cli.options import LOAD_DEFAULTS, LoadOptions, Model, OtherWeights, ValueMatrices, find_model
from kvw.quiet import quiet_libraries
from kvw.settings import check_at_least


def chat(
    model: Model,
    *,
    edit: Annotated[Path | None, Parameter(help="Edit file: ask the model with and without it.")] = None,
    image: Annotated[
        list[Path] | None, Parameter(negative="", help="Image to ask about. Repeatable; none for text only.")
    ] = None,
    ask: Annotated[
        list[str] | None, Parameter(negative="", help="Ask this and exit instead of reading questions. Repeatable.")
    ] = None,
    max_new_tokens: Annotated[int, Parameter(help="Longest answer in tokens.")] = 50,
    other_weights: OtherWeights = False,
    value_matrices: ValueMatrices = "",
    load: LoadOptions = LOAD_DEFAULTS,
) -> None:
    """Ask the original and the edited model the same questions. No question depends on another."""
    from kvw.runs.first_checks import check_edit_files, check_pictures

    check_at_least("--max-new-tokens", max_new_tokens, 1)
    check_edit_files([edit] if edit else [])
    check_pictures(image or [])
    checkpoint = find_model(model, value_matrices, load.template_option)
    quiet_libraries()

    from kvw.console import ConsoleReporter
    from kvw.edits import load_edit
    from kvw.runs.chat import Conversation

    loaded_edit = load_edit(edit) if edit else None
    pictures = tuple(image or ())
    conversation = Conversation(
        checkpoint,
        loaded_edit,
        pictures,
        ConsoleReporter(),
        max_new_tokens=max_new_tokens,
        other_weights=other_weights,
        device=load.device,
        quantise=load.quantise,
    )
    for question in ask or _typed_questions():
        for name, answer in conversation.answer(question).items():
            print(f"{name}: {answer}")


def _typed_questions() -> Iterator[str]:
    """Questions, one a line, until the end of input (Ctrl-D on a terminal)."""
    while True:
        try:
            question = input("question> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if question:
            yield question
