"""The body of a request for an answer."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from kvw.serving import limits
from kvw.serving.messages import Message, Stated
from kvw.serving.refusals import Refusal, shortened

WITHOUT_EFFECT: Mapping[str, Any] = {
    "n": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "tools": [],
    "tool_choice": "none",
    "functions": [],
    "function_call": "none",
    "reasoning_effort": "none",
    "store": False,
}
"""Parameters that are not supported, and the value of each that asks for nothing."""
HALF_A_PAIR = re.compile("[\ud800-\udfff]")


def _as_list(given: object) -> object:
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise PydanticCustomError("stop", "Input should be a string or a list of strings")
    return given


class StreamOptions(Stated):
    """What a stream has beside the answer."""

    without_effect: ClassVar[Mapping[str, Any]] = {"include_obfuscation": False}

    include_usage: bool = False


class ChatRequest(Stated):
    """A request for an answer; whatever is not here is not supported and refused."""

    without_effect: ClassVar[Mapping[str, Any]] = WITHOUT_EFFECT

    model: str
    messages: list[Message] = Field(min_length=1, max_length=limits.MESSAGES)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(0.0, ge=0, le=2)
    """0, which is greedy, also if the request has none."""
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=limits.STOP)]],
        Field(max_length=4),
        BeforeValidator(_as_list),
    ] = Field(default_factory=list)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    # For the client's own records, for what this server does not do, or for what it has but one of.
    user: str = ""
    safety_identifier: str = ""
    prompt_cache_key: str = ""
    metadata: dict[str, str] = Field(default_factory=dict)
    service_tier: Literal["auto", "default"] = "auto"
    parallel_tool_calls: bool = True

    @property
    def max_new_tokens(self) -> int | None:
        """The longest answer; None if the request leaves it open."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        return tuple(self.stop)


def read_request(content: bytes | bytearray) -> ChatRequest:
    """Read the body of a request.

    Parameters that are null, and those that are not supported but ask for nothing, are the same as absent ones.

    Raises:
        Refusal: It is not JSON, holds more than any request needs, lacks something, or asks for something that this
            server does not do.
    """
    body = _parsed(content)
    if not isinstance(body, dict):
        raise Refusal(400, "The body of the request is not a JSON object.")
    _check_values(body)
    try:
        request = ChatRequest.model_validate(body)
    except ValidationError as error:
        raise _refusal(error) from error
    if request.max_tokens and request.max_completion_tokens:
        raise Refusal(
            400, "Both max_tokens and max_completion_tokens are set; they are the same.", parameter="max_tokens"
        )
    return request


def _parsed(content: bytes | bytearray) -> Any:
    if sum(content.count(mark) for mark in b",[{") > limits.MARKS:  # a list of ones takes many times its bytes
        raise Refusal(400, f"The request holds more than {limits.MARKS} commas and brackets.")
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"The body of the request is not JSON: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        # Which one counts differs from program to program, and a gateway may have looked at the other.
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise Refusal(400, f"The request has two fields '{shortened(twice)}' in one object.", parameter=twice)
    return fields


def _check_values(body: Any) -> None:
    """Refuse a body that is no conversation: the work that follows, errors included, grows with its values."""
    waiting, count = [body], 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and not value.isascii() and HALF_A_PAIR.search(value):
            raise Refusal(400, f"A text is not valid Unicode: half of a surrogate pair in '{shortened(value)}'.")
        if isinstance(value, dict | list):
            count += len(value)
            if count > limits.VALUES:
                raise Refusal(400, f"The request holds more than {limits.VALUES} values.")
            waiting.extend(value)
        if isinstance(value, dict):
            waiting.extend(value.values())


def _refusal(error: ValidationError) -> Refusal:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    location = list(first["loc"])
    if location[0] == "messages" and len(location) > 4:
        del location[4]  # pydantic's name for the kind of the part
    place = ".".join(shortened(str(part)) for part in location)
    if first["type"] == "extra_forbidden":
        return Refusal(
            400, f"'{place}' is not supported by this server.", parameter=place, code="unsupported_parameter"
        )
    return Refusal(400, f"'{place}': {first['msg']}.", parameter=place)
