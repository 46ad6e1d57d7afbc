"""A model behind a server that speaks OpenAI's chat completions: vLLM, SGLang, ``transformers serve`` and others."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kvw.data import Example, ImageSource, image_digest, load_image
from kvw.data.images import png
from kvw.data.rendering import conversation
from kvw.errors import UserError
from kvw.evaluation.journal import ANSWERS, Journal
from kvw.evaluation.records import Reply
from kvw.evaluation.running import Key
from kvw.evaluation.served_reply import Malformed, choice_of, reply_of
from kvw.optional import optional
from kvw.printable import shortened
from kvw.progress import Progress
from kvw.settings import check_at_least

if TYPE_CHECKING:
    import openai

SECONDS_TO_CONNECT = 5.0
OPENING_QUESTION = Example("Hello", "Hello", identifier="opening question")
OLD_LIMIT, NEW_LIMIT = "max_tokens", "max_completion_tokens"
"""What the longest answer is called; every server knows one of them, and not every server both."""
NO_KEY = "none"
"""Sent to servers that ask for no key: the client cannot send nothing."""


class EndpointModel:
    """A model that is asked over HTTP.

    Questions are put as kvw puts them to a model of its own: one user message, images (lossless PNG) before the text,
    greedy decoding. The chat template is the server's. What a model thinks before its answer is no part of it.

    Attributes:
        url: As given.
        model: The name by which the server knows the model; None until :meth:`check` has asked for it.
        thought_tokens: As given.
        asked: Questions that the last call of :meth:`answers` put to the server.
        at_limit: Answers to them that are as long as was allowed.

    Args:
        url: Where the server speaks OpenAI's protocol, most often ``http://HOST:PORT/v1``.
        model: The name; None takes the only one that the server lists.
        api_key: None for that in the environment variable ``OPENAI_API_KEY``, if it is set.
        thought_tokens: Tokens that the model may use to think, beside those of the answer. Servers count the two
            together, so a model that thinks less may use the rest for its answer.
        temperature: 0 asks for greedy answers.
        in_flight: Requests at the same time.
        retries: How often a request is repeated after a lost connection, a time-out, or status 408, 409, 429 or 5xx.
        timeout: Seconds that the server may take for one answer.

    Raises:
        UserError: The package openai is not installed, ``url`` is none, or ``thought_tokens`` is negative.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        thought_tokens: int = 0,
        temperature: float = 0.0,
        in_flight: int = 8,
        retries: int = 2,
        timeout: float = 600.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise UserError("This is not the URL of a server.", found=url, do="write it as http://HOST:PORT/v1")
        check_at_least("thought_tokens", thought_tokens, 0)
        self.url = url
        self.model = model
        self.thought_tokens, self.temperature = thought_tokens, temperature
        self.asked = self.at_limit = 0
        self._limit_name = OLD_LIMIT
        self._in_flight = in_flight
        self._checked = False
        self._openai = optional("openai", use="Asking a server needs", extra="endpoint")
        self._client: openai.OpenAI = self._openai.OpenAI(
            base_url=url,
            api_key=api_key or os.environ.get("OPENAI_API_KEY") or NO_KEY,
            max_retries=retries,
            timeout=self._openai.Timeout(timeout, connect=SECONDS_TO_CONNECT),
        )

    def check(self) -> None:
        """Find out whether the server is there, and whether it answers a short question to this model.

        Raises:
            UserError: It is not there, does not speak this protocol, has several models and none was named, or refuses
                the question.
        """
        if self._checked:
            return
        if self.model is None:
            self.model = self._only_model()
        try:
            self._ask(OPENING_QUESTION, 1)  # too few for a model that thinks: any reply will do
        except self._openai.APIConnectionError as error:
            raise self._unreachable(error) from error
        except (self._openai.OpenAIError, Malformed) as error:
            raise UserError(
                f"The server at {self.url} does not answer questions to '{self.model}'.",
                found=self._told(error),
                do=f"check the URL (most end in /v1), the key (OPENAI_API_KEY) and --served-model{self._hint()}",
            ) from error
        self._checked = True

    def answers(
        self,
        examples: Sequence[Example],
        *,
        max_new_tokens: int = 50,
        journal: Journal | None = None,
        progress: Progress | None = None,
    ) -> list[Reply]:
        """Ask all questions; equal ones once.

        Args:
            examples: What to ask.
            max_new_tokens: The longest answer in tokens, end token included.
            journal: Keeps answers as they come, and has those that need not be asked again.
            progress: Called with (examples done, examples in all).

        Returns:
            One reply per example, in order, without surrounding white space. Where the server gave none, in spite of
            repeated requests, or the answer was cut off inside a thought, the reply has an ``error``; it is not kept in
            the journal.

        Raises:
            UserError: The server cannot be used at all (see :meth:`check`), an image cannot be decoded, or
                ``max_new_tokens`` is not positive; or an example is plain text, which this protocol cannot ask for.
        """
        if document := next((example for example in examples if example.plain), None):
            raise UserError(
                f"{document.identifier}: a model behind a server cannot be asked to go on with a document.",
                found="plain text without a question",
                do="give questions about it, or load the model itself",
            )
        check_at_least("max_new_tokens", max_new_tokens, 1)
        self.check()
        rows_of = _rows_of_equal_questions(examples)
        kept = (journal or Journal(None)).kept(ANSWERS, str)
        replies = {key: Reply(text) for key in rows_of if (text := kept.find(key)) is not None}
        done = sum(len(rows_of[key]) for key in replies)
        self.asked, self.at_limit = len(rows_of) - len(replies), 0
        pool = ThreadPoolExecutor(self._in_flight)
        try:
            asked = {
                pool.submit(self._reply, examples[rows[0]], max_new_tokens): key
                for key, rows in rows_of.items()
                if key not in replies
            }
            for future in as_completed(asked):
                key, reply = asked[future], future.result()
                replies[key] = reply
                self.at_limit += reply.at_limit
                if reply.error is None:
                    kept.add({key: reply.text})
                done += len(rows_of[key])
                if progress is not None:
                    progress(done, len(examples))
        finally:
            # Ctrl-C waits for the requests in flight and no others.
            pool.shutdown(cancel_futures=True)
        reply_of = {row: replies[key] for key, rows in rows_of.items() for row in rows}
        return [reply_of[row] for row in range(len(examples))]

    def _reply(self, example: Example, max_new_tokens: int) -> Reply:
        try:
            choice = self._ask(example, max_new_tokens + self.thought_tokens)
            return reply_of(choice, thinks=self.thought_tokens > 0)
        except (self._openai.OpenAIError, Malformed) as error:
            return Reply(error=f"the server gave no answer: {self._told(error)}")

    def _ask(self, example: Example, max_tokens: int) -> dict[str, Any]:
        messages = _messages(example)
        name = self._limit_name
        try:
            return self._choice(messages, name, max_tokens)
        except (self._openai.BadRequestError, self._openai.UnprocessableEntityError) as error:
            told = error.response.text
            if name == NEW_LIMIT or OLD_LIMIT not in told:
                raise
            try:
                choice = self._choice(messages, NEW_LIMIT, max_tokens)
            except self._openai.APIStatusError as other:
                # Which of the two says what is wrong: the first one, if the second one only knows no such name.
                unknown = NEW_LIMIT in other.response.text and NEW_LIMIT not in told
                raise (error if unknown else other) from None
        self._limit_name = NEW_LIMIT
        return choice

    def _choice(self, messages: list[Any], limit_name: str, max_tokens: int) -> dict[str, Any]:
        limit: dict[str, Any] = {limit_name: max_tokens}
        # The raw reply: what the client makes of one that is against the protocol differs from case to case.
        reply = self._client.chat.completions.with_raw_response.create(
            model=self.model or "",
            messages=messages,
            temperature=self.temperature,
            # The protocol's default, but transformers serve applies the checkpoint's repetition penalty unless told.
            frequency_penalty=0.0,
            **limit,
        )
        return choice_of(reply.http_response.text)

    def _only_model(self) -> str:
        try:
            names = self._listed()
        except self._openai.APIConnectionError as error:
            raise self._unreachable(error) from error
        except (self._openai.OpenAIError, Malformed) as error:
            raise UserError(
                f"The server at {self.url} does not tell which models it has.",
                found=self._told(error),
                do="check the URL (most end in /v1), or name the model with --served-model",
            ) from error
        if len(names) != 1:
            raise UserError(
                f"It is unclear which model at {self.url} to ask.",
                found=f"{len(names)} models{': ' if names else ''}{', '.join(names[:10])}",
                do="name one with --served-model",
            )
        return names[0]

    def _listed(self) -> list[str]:
        content = self._client.with_options(max_retries=0).models.with_raw_response.list().http_response.text
        try:
            return [str(model["id"]) for model in json.loads(content)["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise Malformed(f"no list of models in the reply: {content}") from error

    def _hint(self) -> str:
        try:
            names = self._listed()
        except (self._openai.OpenAIError, Malformed):
            return ""  # servers without such a list are none the worse for it
        return f"; the server lists {', '.join(names[:10])}" if names else ""

    def _told(self, error: BaseException) -> str:
        """What went wrong in one line; of a reply with an error status what the server said."""
        text = str(error) or type(error).__name__
        if isinstance(error, self._openai.APIStatusError):
            text = f"HTTP {error.status_code}: {error.response.text}"
        return shortened(" ".join(text.split()), 300)

    def _unreachable(self, error: Exception) -> UserError:
        return UserError(
            f"There is no server at {self.url}, or it does not answer in time.",
            found=self._told(error.__cause__ or error),
            do="start one, for example: vllm serve MODEL, or: transformers serve MODEL; then give its address with /v1",
        )


def _rows_of_equal_questions(examples: Sequence[Example]) -> dict[Key, list[int]]:
    digests: dict[ImageSource, str] = {}
    rows_of: dict[Key, list[int]] = {}
    for row, example in enumerate(examples):
        for source in example.images:
            if source not in digests:
                digests[source] = image_digest(source)
        earlier = repr(example.earlier) if example.earlier else ""
        key = earlier + example.question, tuple(digests[source] for source in example.images)
        rows_of.setdefault(key, []).append(row)
    return rows_of


def _messages(example: Example) -> list[dict[str, Any]]:
    """The conversation as the protocol takes it, pictures inside."""
    images = iter(example.images)
    messages = conversation(example)
    for message in messages:
        for place, part in enumerate(message["content"]):
            if part["type"] == "image":
                url = _data_url(next(images), example.identifier)
                message["content"][place] = {"type": "image_url", "image_url": {"url": url}}
    return messages


def _data_url(source: ImageSource, identifier: str) -> str:
    """The image as a model of kvw's own would get it, as PNG: no pixel changes on the way."""
    content = png(load_image(source, identifier))
    return f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
