"""Answers as OpenAI's chat completions."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

from kvw.serving.answer import Answer, Ending

STREAM_END = "data: [DONE]\n\n"


def model_list(names: Sequence[str], created: int) -> dict[str, Any]:
    """The reply to a request for the list of models."""
    return {"object": "list", "data": [model_entry(name, created) for name in names]}


def model_entry(name: str, created: int) -> dict[str, Any]:
    """One model of the list; ``created`` in seconds since 1970."""
    return {"id": name, "object": "model", "created": created, "owned_by": "kvw"}


def completion(model: str, text: str, ending: Ending) -> dict[str, Any]:
    """A whole answer."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None,
        "finish_reason": ending.reason,
    }
    return {**_head("chat.completion", model), "choices": [choice], "usage": _usage(ending)}


async def chunks(model: str, answer: Answer, *, include_usage: bool) -> AsyncIterator[str]:
    """An answer as server-sent events, one for each piece of text.

    Raises:
        Exception: Whatever ended the generation.
    """
    head = _head("chat.completion.chunk", model)

    def event(delta: dict[str, str], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event({**head, "choices": [choice], **({"usage": None} if include_usage else {})})

    yield event({"role": "assistant", "content": ""})
    async for piece in answer.pieces():
        yield event({"content": piece})
    yield event({}, answer.ending.reason)
    if include_usage:
        yield _event({**head, "choices": [], "usage": _usage(answer.ending)})
    yield STREAM_END


def failure_event(body: dict[str, Any]) -> str:
    """The last event of a stream that broke; clients raise what it says."""
    return _event(body)


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _head(kind: str, model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _usage(ending: Ending) -> dict[str, int]:
    return {
        "prompt_tokens": ending.prompt_tokens,
        "completion_tokens": ending.answer_tokens,
        "total_tokens": ending.prompt_tokens + ending.answer_tokens,
    }
