"""How requests for an answer come in: a limited number at a time, each within its size and its time."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kvw.serving import limits
from kvw.serving.refusals import Refusal
from kvw.serving.replies import failure_event

SECONDS_TO_LISTEN = 1.0
"""How long to read on when a client is refused. A connection that is closed earlier loses the refusal."""


class Reception:
    """Lets requests through to an application while there is room, and ends those whose time is over.

    Args:
        app: Answers one request.
        seconds: From the beginning of a request to the end of its answer.
        most: Requests at the same time.
    """

    def __init__(self, app: ASGIApp, seconds: float, most: int) -> None:
        self._app = app
        self._seconds = seconds
        self._free = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            Refusal: There is no room, or the time was over before the answer began.
        """
        if self._free == 0:
            await take_rest(receive)
            raise Refusal(503, "The server has as many requests as it can hold; try again later.", code="overloaded")
        begun = streaming = False

        async def watched(message: Message) -> None:
            nonlocal begun, streaming
            begun = True
            streaming = message["type"] == "http.response.start" or message.get("more_body", False)
            await send(message)

        self._free -= 1
        try:
            async with asyncio.timeout(self._seconds):
                await self._app(scope, receive, watched)
        except TimeoutError as error:
            refusal = Refusal(503, f"The answer was not there within {self._seconds:g} seconds.", code="timeout")
            if not begun:
                raise refusal from error
            if streaming:
                # A client that does not read does not get this either; the server closes its connection.
                with suppress(TimeoutError):
                    async with asyncio.timeout(SECONDS_TO_LISTEN):
                        end = {"body": failure_event(refusal.body()).encode(), "more_body": False}
                        await send({"type": "http.response.body", **end})
        finally:
            self._free += 1


async def body(request: Request, most: int) -> bytearray:
    """The body of a request.

    Raises:
        Refusal: It is larger than ``most`` bytes, or does not come in time.
        ClientDisconnect: The client has gone.
    """
    too_large = Refusal(413, f"The request is larger than {_size(most)}.", code="request_too_large")
    if int(request.headers.get("content-length", 0)) > most:  # the server has checked that it is a number
        await take_rest(request.receive)
        raise too_large
    content, more = bytearray(), True
    try:
        async with asyncio.timeout(limits.SECONDS_FOR_BODY):
            while more and len(content) <= most:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                content += message.get("body", b"")
                more = message.get("more_body", False)
    except TimeoutError as error:
        what = f"The body of the request did not come within {limits.SECONDS_FOR_BODY:g} seconds."
        raise Refusal(408, what, code="timeout") from error
    if len(content) > most:
        if more:
            await take_rest(request.receive)
        raise too_large
    return content


async def gone(request: Request) -> None:
    """Wait until the client has closed the connection; for requests whose body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def take_rest(receive: Receive) -> None:
    """Take what is left of a body, for a while, and keep nothing of it."""
    with suppress(TimeoutError):
        async with asyncio.timeout(SECONDS_TO_LISTEN):
            while (message := await receive()).get("more_body", False):
                pass
            if message["type"] == "http.disconnect":
                raise ClientDisconnect


def _size(size: int) -> str:
    return f"{size // limits.MIB} MiB" if size % limits.MIB == 0 else f"{size} bytes"
