"""What the server answers at which address."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kvw.serving.answer import Answer
from kvw.serving.chat_request import ChatRequest, read_request
from kvw.serving.conversation import conversation
from kvw.serving.engine import Decoding, Engine
from kvw.serving.names import HEADER, Names, written
from kvw.serving.refusals import Refusal
from kvw.serving.replies import chunks, completion, failure_event, model_entry, model_list

LARGEST_BODY = 64 * 2**20
"""Bytes of a request: several photographs as base64."""
CLIENT_CLOSED_REQUEST = 499
"""nginx's; it is not sent to anybody."""
FAILURE = "The server failed; its log says why."

logger = logging.getLogger(__name__)


def build_app(engine: Engine, names: Names) -> Starlette:
    """The application that answers OpenAI's protocol.

    Args:
        engine: Answers; closed when the application ends.
        names: What clients may ask for.
    """
    served = _Served(engine, names)
    return Starlette(
        routes=[
            Route("/v1/models", served.models),
            Route("/v1/models/{name:path}", served.model),
            Route("/v1/chat/completions", served.chat, methods=["POST"]),
            Route("/health", served.health),
        ],
        exception_handlers={
            Refusal: _refused,
            HTTPException: _no_such_route,
            ClientDisconnect: _nobody_there,
        },
        lifespan=served.lifespan,
    )


class _Served:
    def __init__(self, engine: Engine, names: Names) -> None:
        self._engine = engine
        self._names = names
        self._started = int(time.time())

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self._engine.close()

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def models(self, request: Request) -> Response:
        return JSONResponse(model_list(self._names.listed, self._started))

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        self._names.chosen(name)
        return JSONResponse(model_entry(name, self._started))

    async def chat(self, request: Request) -> Response:
        asked = read_request(await _body(request))
        chosen = self._names.chosen(asked.model, request.headers.getlist(HEADER))
        answer = self._engine.ask(chosen, conversation(asked.messages), _decoding(asked))
        model = written(chosen)
        headers = {HEADER: model}
        try:
            if not asked.stream:
                text, ending = await _unless_gone(request, answer.whole())
                return JSONResponse(completion(model, text, ending), headers=headers)
            # So that a request that cannot be answered gets a status of its own, and not a broken stream.
            await _unless_gone(request, answer.begun())
        except (Refusal, ClientDisconnect, asyncio.CancelledError):
            answer.give_up()
            raise
        except Exception as error:
            logger.exception("a request has no answer")
            raise Refusal(500, FAILURE) from error
        events = chunks(model, answer, include_usage=asked.stream_options.include_usage)
        return _Stream(answer, events, headers=headers)


class _Stream(StreamingResponse):
    """Server-sent events that end the generation when they end, and they end when the client has gone."""

    def __init__(self, answer: Answer, events: AsyncIterator[str], headers: dict[str, str]) -> None:
        super().__init__(_to_the_end(events), headers=headers, media_type="text/event-stream")
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.give_up()


async def _to_the_end(events: AsyncIterator[str]) -> AsyncIterator[str]:
    """A stream that says so if it breaks; its status has been sent already."""
    try:
        async for event in events:
            yield event
    except Refusal as error:
        yield failure_event(error.body())
    except Exception:
        logger.exception("an answer broke off")
        yield failure_event(Refusal(500, FAILURE).body())


async def _unless_gone(request: Request, work: Awaitable[Any]) -> Any:
    """Wait for something, but not longer than the client does.

    Raises:
        ClientDisconnect: The client has closed the connection.
    """
    working, going = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((working, going), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        going.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _body(request: Request) -> bytes:
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > LARGEST_BODY:
            raise Refusal(413, f"The request is larger than {LARGEST_BODY // 2**20} MiB.")
    return bytes(content)


def _decoding(asked: ChatRequest) -> Decoding:
    return Decoding(asked.max_new_tokens, asked.temperature, asked.top_p, asked.seed, asked.stops)


async def _refused(request: Request, error: Exception) -> Response:
    refusal = error if isinstance(error, Refusal) else Refusal(500, FAILURE)
    return JSONResponse(refusal.body(), refusal.status)


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    found = Refusal(status, f"There is nothing at {request.method} {request.url.path}.")
    return JSONResponse(found.body(), status)


async def _nobody_there(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)
