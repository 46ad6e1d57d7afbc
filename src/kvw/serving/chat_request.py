"""The body of a request for an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvw.serving.conversation import Message
from kvw.serving.refusals import Refusal

WITHOUT_EFFECT: Mapping[str, Any] = {
    "n": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "logit_bias": {},
    "response_format": {"type": "text"},
    "modalities": ["text"],
    "tools": [],
}
"""Parameters that are not supported, and the value of each that asks for nothing."""
Stop = Annotated[str, Field(min_length=1)]


class StreamOptions(BaseModel):
    """What a stream has beside the answer."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A request for an answer; whatever is not here is not supported and refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(0.0, ge=0, le=2)
    """0, which is greedy, also if the request has none."""
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] = Field(default_factory=list)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    user: str = ""
    """For the client's own records."""

    @property
    def max_new_tokens(self) -> int | None:
        """The longest answer; None if the request leaves it open."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


def read_request(content: bytes) -> ChatRequest:
    """Read the body of a request.

    Parameters that are null, and those that are not supported but ask for nothing, are the same as absent ones.

    Raises:
        Refusal: It is not JSON, lacks something, or asks for something that this server does not do.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"The body of the request is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refusal(400, "The body of the request is not a JSON object.")
    stated = _without_nulls(body)
    asked = {
        name: value for name, value in stated.items() if not (name in WITHOUT_EFFECT and value == WITHOUT_EFFECT[name])
    }
    try:
        request = ChatRequest.model_validate(asked)
    except ValidationError as error:
        raise _refusal(error) from error
    if request.max_tokens and request.max_completion_tokens:
        raise Refusal(
            400, "Both max_tokens and max_completion_tokens are set; they are the same.", parameter="max_tokens"
        )
    return request


def _without_nulls(body: dict[str, Any]) -> dict[str, Any]:
    """The body and its messages without nulls, which clients send for what they leave open."""
    stated = {name: value for name, value in body.items() if value is not None}
    if isinstance(stated.get("messages"), list):
        stated["messages"] = [
            {name: value for name, value in message.items() if value is not None}
            if isinstance(message, dict)
            else message
            for message in stated["messages"]
        ]
    return stated


def _refusal(error: ValidationError) -> Refusal:
    found = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        return Refusal(
            400, f"'{place}' is not supported by this server.", parameter=place, code="unsupported_parameter"
        )
    return Refusal(400, f"'{place}': {found['msg']}.", parameter=place)
