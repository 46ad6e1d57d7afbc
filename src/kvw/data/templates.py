"""The chat template of a model: which of several, with which variables, and rendered within bounds."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeAlias

import jinja2
import jinja2.meta

from kvw.data import bounded
from kvw.errors import UserError

logger = logging.getLogger(__name__)

Processor: TypeAlias = Any
"""A Hugging Face processor, whose attributes differ from family to family and carry no types, or a
:class:`~kvw.data.text.TextProcessor`."""

DEFAULT = "default"
"""Name of the template for conversations, if there are several; others are for tools or documents."""
TEMPLATE_VARIABLES = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""Given to templates that name them. Models that can think first (Qwen3) are asked to answer at once; templates that
tell the date (Llama 3.2) get the one that they fall back to themselves, so that no result depends on the day."""
DAY = datetime(2024, 7, 26)
"""Today, for templates that ask for the date by themselves (gpt-oss)."""
DATE = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
GIVEN = {"messages", "add_generation_prompt", "raise_exception", "strftime_now", "namespace", "range", "dict"}
"""Variables of templates that are no options: what is shown, and what templates can call."""
GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
"""Marks of what is trained on, which only transformers knows; they change nothing here."""
LONGEST_PROBE = 20_000
"""Characters of the long question that every template is tried on."""
MOST_TEXT = 1_000_000
"""Characters that a template may make of such a question."""

_tried: dict[tuple[str, bool], str] = {}
"""What is wrong with templates that have been tried, by their text and whether pictures were shown."""


def shortened(text: str, limit: int = 200) -> str:
    """A text as Python writes it, its middle left out if it is long."""
    return repr(text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}")


def chat_template(processor: Processor) -> str | None:
    """The template that this model is asked with; None if there is none.

    A processor's own comes before its tokenizer's. Of several the one named ``default`` is taken.

    Raises:
        UserError: There are several and none is the default one, or it is no text.
    """
    template = getattr(processor, "chat_template", None)
    template = template or getattr(getattr(processor, "tokenizer", None), "chat_template", None)
    if isinstance(template, list) and all(isinstance(entry, Mapping) for entry in template):
        template = {entry.get("name"): entry.get("template") for entry in template}
    if isinstance(template, Mapping):
        if DEFAULT not in template and len(template) > 1:
            raise UserError(
                "The model has several chat templates, and none is the default one.",
                found=", ".join(map(str, template)),
                do=f"name one of them '{DEFAULT}', or set processor.chat_template",
            )
        template = template.get(DEFAULT, next(iter(template.values()), None))
    if not template:
        return None
    if not isinstance(template, str):
        raise UserError(
            "The model's chat template is no text.",
            found=shortened(str(template)),
            do="put a template that is text into the chat_template.jinja of the model",
        )
    return _dated(template)


@lru_cache
def _dated(template: str) -> str:
    return DATE.sub(lambda match: json.dumps(DAY.strftime(match[2]), ensure_ascii=False), template)


def with_options(template: str | None, options: Sequence[tuple[str, Any]]) -> str:
    """A template whose variables have these values from the start.

    Args:
        template: The model's own.
        options: Names and values; values as JSON knows them.

    Raises:
        UserError: There is no template, or it does not know one of the names.
    """
    known = _variables(template) if template else set()
    for name, _ in options:
        if name not in known:
            raise UserError(
                f"The model's chat template has no option '{name}'.",
                found=f"its variables: {', '.join(sorted(known))}" if known else "no chat template, or one without any",
                do="leave --template-option out, or name a variable of the template",
            )
    values = "".join(f"{{%- set {name} = {_literal(value)} -%}}" for name, value in options)
    return values + (template or "")


def _variables(template: str) -> set[str]:
    """What a template reads and does not always set itself."""
    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=False)
    try:
        return jinja2.meta.find_undeclared_variables(environment.parse(GENERATION.sub("", template))) - GIVEN
    except (jinja2.TemplateError, RecursionError) as error:
        raise UserError(
            "The model's chat template is not valid.",
            found=shortened(str(error)),
            do="correct the chat_template.jinja of the model",
        ) from error


def apply_template(
    identifier: str, processor: Processor, conversation: Sequence[Mapping[str, Any]], **options: bool
) -> str:
    """Render a conversation with the chat template of the model's processor.

    Args:
        identifier: How messages name the conversation.
        processor: A Hugging Face processor with a chat template.
        conversation: Messages, each with a role and a list of parts.
        **options: Those of ``apply_chat_template``.

    Raises:
        UserError: There is no chat template, it goes beyond the bounds of time and memory, or it cannot show this
            conversation.
    """
    template = chat_template(processor)
    if template is None:
        raise UserError(
            "The processor has no chat template, so it is unknown how this model is asked a question.",
            found=type(processor).__name__,
            do="use the instruction-tuned model, or set processor.chat_template",
        )
    check_bounds(processor, f"the {type(processor).__name__}")
    try:
        return _rendered(processor, template, conversation, **options)
    except Exception as error:  # a template is a program, and may fail in any way
        raise UserError(
            f"{identifier}: the chat template cannot show this example.",
            found=f"{type(error).__name__}: {shortened(str(error))}",
            do="check that the processor belongs to an instruction-tuned model that takes images and text",
        ) from error


def check_bounds(processor: Processor, name: str) -> None:
    """Try out a chat template once in this process's life, before it is trusted.

    Args:
        processor: A Hugging Face processor; one without a chat template passes.
        name: Whose template it is, for the message.

    Raises:
        UserError: It does not end, calls itself without end, takes too much memory, or writes too much.
    """
    template = chat_template(processor)
    if template is None:
        return
    pictures = getattr(processor, "image_processor", None) is not None
    key = template, pictures
    if key not in _tried:
        _tried[key] = bounded.trouble(lambda: _written_too_much(processor, template, pictures))
    if _tried[key]:
        raise UserError(
            f"The chat template of {name} cannot be used: {_tried[key]}.",
            found=shortened(template),
            do="get chat_template.jinja (or chat_template in tokenizer_config.json) from the model's publisher again",
        )


def _rendered(processor: Processor, template: str, conversation: Sequence[Mapping[str, Any]], **options: bool) -> str:
    # Processors take variables that a template does not name for settings of their own, and warn.
    variables = {name: value for name, value in TEMPLATE_VARIABLES.items() if name in template}
    rendered = str(
        processor.apply_chat_template(conversation, chat_template=template, tokenize=False, **variables, **options)
    )
    rendered.encode("utf-8")  # half of a surrogate pair in a template would stop the tokenizer
    return rendered


def _written_too_much(processor: Processor, template: str, pictures: bool) -> str:
    """Render conversations of every kind that is asked later.

    Their ordinary errors are but logged: many templates refuse one or another, a system message for example.
    """

    def said(role: str, text: str, images: int = 0) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "image"}] * images + [{"type": "text", "text": text}]}

    question, answer = said("user", "Who is this?"), said("assistant", "A florist.")
    tries = [[question], [said("user", "word " * (LONGEST_PROBE // 5))], [said("system", "Be brief."), question]]
    tries += [[said("user", "Who?", images)] for images in (1, 2) if pictures]
    written = 0
    for conversation in tries:
        asking: dict[str, bool] = {"add_generation_prompt": True}
        for shown, options in (
            (conversation, asking),
            ([*conversation, answer], {}),
            ([*conversation, answer, question], asking),
        ):
            try:
                written = max(written, len(_rendered(processor, template, shown, **options)))
            except (MemoryError, RecursionError):
                raise
            except Exception as error:  # noqa: BLE001 - told when such a conversation is asked in earnest
                roles = ", ".join(message["role"] for message in shown)
                logger.debug("A chat template cannot show a conversation of %s: %s", roles, error)
    return f"it writes {written:,} characters where a short text was asked" if written > MOST_TEXT else ""


def _literal(value: Any) -> str:
    """A value of JSON as templates write it."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(name)}: {_literal(entry)}" for name, entry in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)
