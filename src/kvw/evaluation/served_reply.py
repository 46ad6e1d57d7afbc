"""What a server's reply holds: an answer, a thought that was cut off, or neither."""

from __future__ import annotations

import json
from typing import Any

from kvw.evaluation.records import Reply

THOUGHTS = (
    ("<think>", "</think>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
"""What stands around a thought, of servers that leave it in the answer."""
THOUGHT_FIELDS = ("reasoning_content", "reasoning")
"""Where a thought stands, of servers that take it out."""
AT_LIMIT = ("length", "max_tokens", "model_length")
"""What servers call an ending at the longest answer allowed."""


class Malformed(Exception):
    """A reply that lacks what the protocol says must be there."""


def choice_of(content: str) -> dict[str, Any]:
    """The only choice of a reply; its ``message`` is an object.

    Raises:
        Malformed: There is none: a proxy's error page may come with status 200.
    """
    try:
        choice = json.loads(content)["choices"][0]
        if isinstance(choice["message"], dict):
            return dict(choice)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise Malformed(f"no answer in the reply: {content}") from error
    raise Malformed(f"no answer in the reply: {content}")


def reply_of(choice: dict[str, Any], *, thinks: bool) -> Reply:
    """The answer without the thought before it, and without surrounding white space.

    Args:
        choice: From :func:`choice_of`.
        thinks: Whether the model is known to think first: then text that ends at the limit, and in which no thought
            has ended, is a thought.

    Returns:
        The answer, or a reply that is ``cut_off``: the limit was reached before there was one.

    Raises:
        Malformed: There is no text, or the server has withheld it.
    """
    message, reason = choice["message"], choice.get("finish_reason")
    if reason == "content_filter":
        raise Malformed("the server's content filter has withheld the answer")
    said, aside = _texts(message.get("content"))
    if said is None and isinstance(refusal := message.get("refusal"), str):
        return Reply(refusal.strip())  # what the model has said, in a field of its own
    text, inside = _without_thought(said or "")
    thought = aside or text != said or any(message.get(name) for name in THOUGHT_FIELDS)
    at_limit = reason in AT_LIMIT
    if inside or (at_limit and (not text.strip() or (thinks and not thought))):
        return Reply(error="the answer was cut off: its tokens ended inside the model's thought", cut_off=True)
    if said is None:
        raise Malformed(f"no text in the reply: {json.dumps(choice)}")
    if thought and not text.strip():
        raise Malformed(f"a thought and no answer in the reply: {json.dumps(choice)}")
    return Reply(text.strip(), at_limit=at_limit)


def _texts(content: object) -> tuple[str | None, bool]:
    """The text of a message, and whether there are thoughts beside it; a list has a part for each."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict)]
        texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
        return "".join(texts) if texts else None, any("thinking" in part for part in parts)
    if content is not None and not isinstance(content, str):
        raise Malformed(f"no text in the reply: {json.dumps(content)}")
    return content, False


def _without_thought(text: str) -> tuple[str, bool]:
    """What follows the thought, and whether the text ends inside one.

    A chat template may open the thought, so that only its end is in the text.
    """
    for opening, closing in THOUGHTS:
        _, found, answer = text.rpartition(closing)
        if found:
            return answer, False
        if text.lstrip().startswith(opening):
            return "", True
    return text, False
