"""The messages of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class Stated(BaseModel):
    """A JSON object in which null, and what asks for nothing, is the same as absent; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    without_effect: ClassVar[Mapping[str, Any]] = {}
    """Fields that are not supported, and the value of each that asks for nothing."""

    @model_validator(mode="before")
    @classmethod
    def _stated(cls, given: Any) -> Any:
        return (
            {name: value for name, value in given.items() if not cls._asks_nothing(name, value)}
            if isinstance(given, dict)
            else given
        )

    @classmethod
    def _asks_nothing(cls, name: str, value: object) -> bool:
        if value is None:
            # A null that must not be is told as such, not as something missing.
            return not (name in cls.model_fields and cls.model_fields[name].is_required())
        nothing = cls.without_effect.get(name)
        return value == nothing and isinstance(value, bool) == isinstance(nothing, bool)


class TextPart(Stated):
    """A piece of text in a message."""

    type: Literal["text"]
    text: str | None
    cache_control: Any = None
    """A hint to servers that keep prompts. This one ignores it."""


class RefusalPart(Stated):
    """What the assistant has said in place of an answer."""

    type: Literal["refusal"]
    refusal: str


class ImageAddress(Stated):
    """Where an image is."""

    url: str
    detail: Literal["auto", "low", "high", "original"] = "auto"
    """Without effect: the size at which a model sees an image is that of its processor."""


def _as_address(given: object) -> object:
    return {"url": given} if isinstance(given, str) else given


class ImagePart(Stated):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: Annotated[ImageAddress, BeforeValidator(_as_address)]
    cache_control: Any = None


Part = TextPart | ImagePart | RefusalPart


def _as_parts(given: object) -> object:
    if isinstance(given, str):
        return [{"type": "text", "text": given}]
    if not isinstance(given, list):
        # Two types to choose from would give an error for each, and the first one would be told.
        raise PydanticCustomError("content", "Input should be a string or a list of parts")
    return given


class Message(Stated):
    """One turn of a conversation."""

    without_effect: ClassVar[Mapping[str, Any]] = {"tool_calls": [], "annotations": []}

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[Annotated[Part, Field(discriminator="type")]], Field(min_length=1), BeforeValidator(_as_parts)
    ]
    name: str | None = None
    """A name for the client's own records. Chat templates have no place for it."""
    cache_control: Any = None

    @model_validator(mode="before")
    @classmethod
    def _with_refusal(cls, given: Any) -> Any:
        """What an assistant has refused with stands beside its content, which then may be null."""
        if not isinstance(given, dict) or given.get("refusal") is None:
            return given
        content = given.get("content")
        said = [] if content is None else _as_parts(content)
        refusal = {"type": "refusal", "refusal": given["refusal"]}
        rest = {name: value for name, value in given.items() if name != "refusal"}
        return {**rest, "content": [*said, refusal] if isinstance(said, list) else said}
