"""Conversations in rows of data: messages as the chat APIs and the training libraries write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvw.data.example import ImageSource, Turn
from kvw.errors import UserError
from kvw.plural import counted
from kvw.printable import shortened

COLUMNS = ("messages", "conversations")
"""Columns that hold a conversation; of both names either form is read."""
ROLES = {
    **{"system": "system", "developer": "system"},
    **{"user": "user", "human": "user"},
    **{"assistant": "assistant", "gpt": "assistant", "model": "assistant"},
}
MARK = "<image>"
"""Where a picture belongs, in texts of conversations whose pictures are in a column of their own."""
HOLDERS = ("image", "image_url", "url", "path", "bytes", "base64", "data")
"""Entries of a part that may hold its picture."""

Picture = Callable[[object], ImageSource]
"""Finds the picture that a value stands for."""


@dataclass(frozen=True)
class Asked:
    """A question of a conversation with its answer.

    Args:
        question, answer: The texts.
        images: The pictures of all messages up to the question.
        earlier: The messages before the question.
    """

    question: str
    answer: str
    images: tuple[ImageSource, ...]
    earlier: tuple[Turn, ...]


@dataclass(frozen=True)
class _Message:
    role: str
    text: str
    images: tuple[ImageSource, ...]


def questions_of(messages: Any, images: Sequence[ImageSource], where: str, picture: Picture) -> list[Asked]:
    """Every answer of the assistant with what was said before it.

    Args:
        messages: A list of ``{"role": ..., "content": ...}`` or ``{"from": ..., "value": ...}``; a content is a text or
            a list of parts, ``{"type": "text", "text": ...}``, ``{"type": "image", ...}`` or
            ``{"type": "image_url", ...}``.
        images: The pictures of the row. Parts without a picture of their own, and marks ``<image>`` in texts, take them
            in order; without either, they belong to the first message of the user.
        where: How messages name the row.
        picture: Finds the picture that a part holds.

    Returns:
        At least one, in order.

    Raises:
        UserError: It is no conversation, or does not end with an answer; or a picture is too many or too few.
    """
    if not isinstance(messages, list) or not messages:
        raise _no_conversation(where, messages)
    rest = list(images)
    read = [_message(entry, f"{where}: message {number}", rest, picture) for number, entry in enumerate(messages, 1)]
    if len(rest) == len(images) and images:
        first = next((place for place, message in enumerate(read) if message.role == "user"), None)
        if first is not None:
            read[first] = _Message("user", read[first].text, (*images, *read[first].images))
            rest = []
    if rest:
        raise UserError(
            f"{where}: the conversation does not show every picture of the row.",
            found=f"{counted(len(images), 'picture')}, {len(rest)} of them left over",
            do=f"put one part of type image, or one {MARK}, for each picture",
        )
    if read[-1].role != "assistant":
        raise UserError(
            f"{where}: the conversation does not end with an answer.",
            found=f"a last message of the {read[-1].role}",
            do="leave out what follows the last answer of the assistant",
        )
    asked = [_asked(read, place, where) for place, message in enumerate(read) if message.role == "assistant"]
    return asked


def _asked(read: Sequence[_Message], place: int, where: str) -> Asked:
    if place == 0 or read[place - 1].role != "user":
        raise UserError(
            f"{where}: an answer follows no question.",
            found=f"message {place + 1} of the assistant after {read[place - 1].role if place else 'nothing'}",
            do="let a message of the user come before each answer",
        )
    before = read[: place - 1]
    images = tuple(image for message in read[:place] for image in message.images)
    earlier = tuple(Turn(message.role, message.text, len(message.images)) for message in before)
    return Asked(read[place - 1].text, read[place].text, images, earlier)


def _message(entry: Any, where: str, rest: list[ImageSource], picture: Picture) -> _Message:
    if not isinstance(entry, Mapping):
        raise _no_conversation(where, entry)
    role = ROLES.get(str(entry.get("role") or entry.get("from")).lower())
    content = entry.get("content") if entry.get("content") is not None else entry.get("value")
    if role is None:
        raise UserError(
            f"{where}: this role is not known.",
            found=shortened(repr(entry.get("role") or entry.get("from"))),
            do="use system, user and assistant; leave tools out",
        )
    parts = [content] if isinstance(content, str) else content
    if not isinstance(parts, list):
        found = shortened(repr(content))
        raise UserError(f"{where}: the content is neither a text nor a list of parts.", found=found, do="give its text")
    texts: list[str] = []
    images: list[ImageSource] = []
    for part in parts:
        text = part if isinstance(part, str) else _text(part, where)
        if text is None:
            images.append(_picture(part, where, rest, picture))
        else:
            for _ in range(text.count(MARK)):
                images.append(_next(rest, where))
                text = text.replace(MARK, "", 1)
            texts.append(text)
    if images and role != "user":
        raise UserError(f"{where}: only messages of the user can show pictures.", found=role, do="move the picture")
    text = "".join(texts)
    return _Message(role, text.strip() if images else text, tuple(images))


def _text(part: Any, where: str) -> str | None:
    """The text of a part; None if it is a picture."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in ("text", "input_text", "output_text") and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind in ("image", "image_url", "input_image"):
        return None
    raise UserError(
        f"{where}: a part of the content is neither a text nor a picture.",
        found=shortened(repr(part)),
        do='write {"type": "text", "text": ...} or {"type": "image", "image": ...}',
    )


def _picture(part: Mapping[str, Any], where: str, rest: list[ImageSource], picture: Picture) -> ImageSource:
    value = next((part[name] for name in HOLDERS if part.get(name) is not None), None)
    if isinstance(value, Mapping) and "url" in value:
        value = value["url"]
    return _next(rest, where) if value is None else picture(value)


def _next(rest: list[ImageSource], where: str) -> ImageSource:
    if not rest:
        raise UserError(
            f"{where}: a picture is missing.",
            found=f"a part of type image or a mark {MARK}, and no picture left in the columns of the row",
            do="name the pictures in a column 'images', in the order in which messages show them, or remove the mark",
        )
    return rest.pop(0)


def _no_conversation(where: str, value: object) -> UserError:
    return UserError(
        f"{where}: this is no conversation.",
        found=shortened(repr(value)),
        do='give a list of messages, such as [{"role": "user", "content": "..."}, {"role": "assistant", ...}]',
    )
