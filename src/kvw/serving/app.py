"""What the server answers at which address."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from kvw.serving.answer import Answer
from kvw.serving.chat_request import ChatRequest, read_request
from kvw.serving.conversation import Conversation, conversation
from kvw.serving.engine import Engine
from kvw.serving.generating import Decoding
from kvw.serving.keys import Key, Keys, allowed
from kvw.serving.ledger import ENTRY, Kept, Ledger
from kvw.serving.limits import DEFAULTS, Limits
from kvw.serving.names import HEADER, Names, written
from kvw.serving.reception import Reception, body, gone, take_rest
from kvw.serving.refusals import Refusal, shortened
from kvw.serving.replies import chunks, completion, failure_event, model_entry, model_list

CLIENT_CLOSED_REQUEST = 499
"""nginx's; it is not sent to anybody."""
FAILURE = "The server failed; its log says why."

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


def build_app(
    engine: Engine, names: Names, limits: Limits = DEFAULTS, keys: Keys | None = None, audit: Path | None = None
) -> Starlette:
    """The application that answers OpenAI's protocol.

    Args:
        engine: Answers; closed when the application ends.
        names: What clients may ask for.
        limits: How much they may ask for.
        keys: Who may ask for which of it; None if nobody is asked who they are.
        audit: Where a line is written for each request; None for nowhere.
    """
    ledger = Ledger(audit)
    served = _Served(engine, names, limits, keys, ledger)
    reception = Middleware(Reception, seconds=limits.seconds, most=limits.requests)
    app = Starlette(
        routes=[
            Route("/v1/models", served.models),
            Route("/v1/models/{name:path}", served.model),
            Route("/v1/chat/completions", served.chat, methods=["POST"], middleware=[reception]),
            Route("/health", served.health),
            Route("/metrics", served.metrics),
        ],
        middleware=[Middleware(Kept, ledger=ledger)],
        exception_handlers={
            Refusal: _refused,
            HTTPException: _no_such_route,
            ClientDisconnect: _nobody_there,
            Exception: _refused,
        },
        lifespan=served.lifespan,
    )
    app.router.redirect_slashes = False
    return app


class _Served:
    def __init__(self, engine: Engine, names: Names, limits: Limits, keys: Keys | None, ledger: Ledger) -> None:
        self._engine = engine
        self._keys = keys
        self._ledger = ledger
        self._names = names
        self._limits = limits
        self._started = int(time.time())
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="kvw-requests")

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self._engine.close()
        self._reader.shutdown(cancel_futures=True)

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        key = self._owner(request)
        if key is not None and not key.metrics:
            raise Refusal(403, "This key is not for the numbers of the server.", code="metrics_not_allowed")
        return PlainTextResponse(self._ledger.metrics(), media_type="text/plain; version=0.0.4")

    async def models(self, request: Request) -> Response:
        key = self._owner(request)
        listed = self._names.listed if key is None else [*([self._names.base] if key.models else []), *key.models]
        return JSONResponse(model_list(listed, self._started))

    async def model(self, request: Request) -> Response:
        name, key = request.path_params["name"], self._owner(request)
        self._chosen(key, name, [])
        return JSONResponse(model_entry(name, self._started))

    def _owner(self, request: Request) -> Key | None:
        """The key of a request, where there are keys."""
        if self._keys is None:
            return None
        key = self._keys.owner(request.headers.getlist("authorization"))
        if ENTRY in request.scope:
            request.scope[ENTRY].key = key.name
        return key

    def _chosen(self, key: Key | None, model: str, headers: list[str]) -> tuple[str, ...]:
        """The edits that a request gets, if its key is for them."""
        if key is None or len(headers) > 1:  # which is refused
            return self._names.chosen(model, headers)
        return self._names.chosen(allowed(key, model, headers, self._names.base))

    async def chat(self, request: Request) -> Response:
        try:
            key = self._owner(request)
        except Refusal:
            await take_rest(request.receive)
            raise
        asked, chosen, said = await self._read(request, key)
        answer = self._engine.ask(chosen, said, _decoding(asked))
        model, entry = written(chosen), request.scope[ENTRY]
        entry.edits, entry.stream, entry.answer = model, asked.stream, answer
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

    async def _read(self, request: Request, key: Key | None) -> tuple[ChatRequest, tuple[str, ...], Conversation]:
        """What is asked for, looked at in a thread of its own: the event loop has others to serve meanwhile."""
        content = await body(request, self._limits.body)
        headers = request.headers.getlist(HEADER)

        def read() -> tuple[ChatRequest, tuple[str, ...], Conversation]:
            asked = read_request(content)
            content.clear()  # several photographs; what is asked has its own copy
            return asked, self._chosen(key, asked.model, headers), conversation(asked.messages, self._limits.images)

        return await _unless_gone(request, asyncio.get_running_loop().run_in_executor(self._reader, read))


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


async def _unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Wait for something, but not longer than the client does."""
    working, going = asyncio.ensure_future(work), asyncio.ensure_future(gone(request))
    try:
        await asyncio.wait((working, going), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        going.cancel()


def _decoding(asked: ChatRequest) -> Decoding:
    return Decoding(asked.max_new_tokens, asked.temperature, asked.top_p, asked.seed, asked.stops)


async def _refused(request: Request, error: Exception) -> Response:
    refusal = error if isinstance(error, Refusal) else Refusal(500, FAILURE)
    headers = {503: {"Retry-After": "1"}, 401: {"WWW-Authenticate": "Bearer"}}.get(refusal.status)
    return JSONResponse(refusal.body(), refusal.status, headers)


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    # Not request.url, which takes the client's word for its host and fails if that is none.
    refusal = Refusal(status, f"There is nothing at {request.method} {shortened(request.scope['path'])}.")
    return JSONResponse(refusal.body(), status)


async def _nobody_there(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)
