"""One model that answers requests, each under the edits that it asks for; those under the same edits together."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from kvw.data.context import context_length
from kvw.data.rendering import Processor
from kvw.edits.edit import Edit
from kvw.measuring.batch_sizing import out_of_memory
from kvw.serving import limits
from kvw.serving.answer import Answer, Ending
from kvw.serving.conversation import Conversation, batch_inputs, prompt_inputs
from kvw.serving.generating import Decoding, Row, generate
from kvw.serving.refusals import Refusal
from kvw.serving.secrets import REFUSAL, Guard

logger = logging.getLogger(__name__)

PIECE = 16_384
"""Characters of a prompt that are tokenised at a time while it is found out whether it is too long."""
CUT = 64
"""Tokens of a piece that are not counted: a text that is cut has a few more than the whole one."""
TOKENS_TOGETHER = 8192
"""Most tokens of requests that are answered together: those of the longest prompt and the longest answer, for each."""


@dataclass(eq=False)
class Asked:
    """A request on its way.

    Args:
        answer: Where the answer goes.
        names: The edits that act, in order.
        conversation: What is asked.
        how: How the answer is generated.
        inputs: The tensors of its prompt, once it is its turn.
    """

    answer: Answer
    names: tuple[str, ...]
    conversation: Conversation
    how: Decoding
    inputs: dict[str, Tensor] | None = None

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, once it has been made."""
        return 0 if self.inputs is None else self.inputs["input_ids"].shape[1]

    def alike(self, other: Asked) -> bool:
        """Whether both can be answered together: greedily, under the same edits, with equal numbers of images."""
        images = len(self.conversation.images) == len(other.conversation.images)
        return self.names == other.names and images and self.how.greedy and other.how.greedy


class Engine:
    """A model and its edits.

    Everything that touches the model or its processor happens in one thread. The request that has waited longest is
    next, and those that wait for the same edits are answered together with it. Their edits are attached before the
    generation and detached after it, however it ends; so no request can see another one's edits, and outside of a
    generation the model has none.

    Args:
        model: The model without edits.
        processor: Its processor.
        edits: The edits by name; they must fit the model.
        longest_answer: The largest number of new tokens that a request may ask for, and what it gets if it does not.
        longest_prompt: The largest number of tokens of a prompt; None for what the model reads, and where it does not
            say that, :data:`kvw.serving.limits.PROMPT_TOKENS`.
        together: Most requests that are answered together.
        guard: Looks at each conversation before the model does; None for nobody.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Processor,
        edits: Mapping[str, Edit],
        *,
        longest_answer: int,
        longest_prompt: int | None = None,
        together: int = limits.DEFAULTS.together,
        guard: Guard | None = None,
    ) -> None:
        self._guard = guard
        self.longest_answer = longest_answer
        self._reads: int | None = context_length(model.config)
        bounds = [bound for bound in (longest_prompt, self._reads) if bound is not None]
        self._longest_prompt = min(bounds, default=limits.PROMPT_TOKENS)
        self._model = model
        self._processor = processor
        self._edits = dict(edits)
        self._together = together
        self._closing = threading.Event()
        self._waiting: deque[Asked] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kvw-model")

    def ask(self, names: Sequence[str], conversation: Conversation, how: Decoding) -> Answer:
        """Put a request into the queue; called on the event loop.

        Args:
            names: The edits that act, in order.
            conversation: What is asked.
            how: How the answer is generated.

        Returns:
            The answer on its way. Reading it raises :class:`Refusal` if the request turns out to be impossible.

        Raises:
            Refusal: The answer may not be that long.
        """
        if (how.max_new_tokens or 0) > self.longest_answer:
            raise Refusal(
                400,
                f"An answer has at most {self.longest_answer} tokens here; {how.max_new_tokens} were asked for.",
                parameter="max_tokens",
            )
        answer = Answer()
        self._waiting.append(Asked(answer, tuple(names), conversation, how))
        self._thread.submit(
            self._turn
        )  # one for each request: where it was answered with others, nothing is left to do
        return answer

    def close(self) -> None:
        """End the generation that runs at its next token, forget those that wait, and wait for the thread."""
        self._closing.set()
        self._thread.shutdown(cancel_futures=True)
        for asked in self._waiting:
            asked.answer.cancel()

    def _turn(self) -> None:
        """Answer the request that has waited longest, and with it those that can be answered together with it."""
        while self._waiting:
            first = self._waiting.popleft()
            if first.answer.start() and self._ready(first):
                rows = [first, *self._joining(first)]
                try:
                    self._answer(rows)
                finally:
                    for asked in rows:
                        asked.inputs = None
                return

    def _joining(self, first: Asked) -> Iterator[Asked]:
        """Requests that wait and are answered together with the first; they are taken out of those that wait."""
        count, longest = 1, self._tokens(first)
        for asked in [one for one in list(self._waiting) if one.alike(first)]:
            if count == self._together or self._closing.is_set():
                return
            if not self._ready(asked):
                self._waiting.remove(asked)
                continue
            longest = max(longest, self._tokens(asked))
            if (count + 1) * longest > TOKENS_TOGETHER:
                return
            self._waiting.remove(asked)
            if asked.answer.start():
                count += 1
                yield asked

    def _tokens(self, asked: Asked) -> int:
        return asked.prompt_tokens + self._longest(asked.prompt_tokens, asked.how.max_new_tokens)

    def _ready(self, asked: Asked) -> bool:
        """Make the prompt of a request; False if the request is refused, which its answer says then."""
        with _told(asked.answer):
            if asked.inputs is None:
                asked.inputs = self._inputs(asked.answer, asked.conversation)
                if self._guard is not None and self._guard.caught(asked.conversation):
                    return self._guarded(asked, self._guard)
            self._longest(asked.prompt_tokens, asked.how.max_new_tokens)
            return True
        return False

    def _guarded(self, asked: Asked, guard: Guard) -> bool:
        """Put the clause into the prompt of a request; False if the request is answered in the model's place."""
        if guard.store.mode == "refuse":
            asked.answer.begin()
            asked.answer.say(REFUSAL)
            tokens = len(self._processor.tokenizer(REFUSAL, add_special_tokens=False)["input_ids"])
            asked.answer.end(Ending("stop", asked.prompt_tokens, tokens))
            return False
        asked.conversation = guard.instructed(asked.conversation)
        asked.inputs = self._inputs(asked.answer, asked.conversation)
        self._longest(asked.prompt_tokens, asked.how.max_new_tokens)
        return True

    def _answer(self, asked: Sequence[Asked]) -> None:
        """Answer requests together; if that fails, each by itself, so that none fails for what another one is."""
        rows = [self._row(one) for one in asked]
        if len(rows) > 1:
            try:
                self._generate(rows, asked)
            except Exception:
                logger.exception("requests that were answered together failed; each is answered by itself")
        for row, one in zip(rows, asked, strict=True):
            if not row.over:
                with _told(one.answer):
                    self._generate([row], [one])

    def _row(self, asked: Asked) -> Row:
        longest = self._longest(asked.prompt_tokens, asked.how.max_new_tokens)
        asked.answer.begin()
        return Row(asked.answer, self._processor.tokenizer, asked.prompt_tokens, longest, asked.how.stops)

    def _generate(self, rows: Sequence[Row], asked: Sequence[Asked]) -> None:
        first = asked[0]
        together = [one.conversation for one in asked]
        inputs = first.inputs if len(asked) == 1 else batch_inputs(together, self._processor)
        with self._attached(first.names):
            generate(self._model, self._processor.tokenizer, inputs or {}, rows, first.how, self._closing)

    @contextmanager
    def _attached(self, names: Sequence[str]) -> Iterator[None]:
        with ExitStack() as attached:
            for name in names:
                attached.enter_context(self._edits[name].attach(self._model))
            yield

    def _inputs(self, answer: Answer, conversation: Conversation) -> dict[str, Tensor]:
        """The prompt, unless the client goes away while it is made."""
        tokens = 0
        for text in conversation.texts:
            for begin in range(0, len(text), PIECE):
                _check_wanted(answer)
                piece = self._processor.tokenizer(text[begin : begin + PIECE], add_special_tokens=False, verbose=False)
                tokens += max(0, len(piece["input_ids"]) - CUT)
                self._check_prompt(tokens, "at least ")
        _check_wanted(answer)
        inputs = prompt_inputs(conversation, self._processor)
        self._check_prompt(inputs["input_ids"].shape[1])
        _check_wanted(answer)
        return inputs

    def _check_prompt(self, tokens: int, at_least: str = "") -> None:
        if tokens > self._longest_prompt:
            raise Refusal(
                400,
                f"This server reads at most {self._longest_prompt} tokens; the prompt has {at_least}{tokens}.",
                parameter="messages",
                code="context_length_exceeded",
            )

    def _longest(self, prompt_tokens: int, asked: int | None) -> int:
        """The longest answer to a prompt, within what the model can read."""
        limit = self._reads
        room = self.longest_answer if limit is None else limit - prompt_tokens
        if room < (asked or 1):
            raise Refusal(
                400,
                f"The model reads at most {limit} tokens; the prompt has {prompt_tokens} and the answer {asked or 1}.",
                parameter="messages",
                code="context_length_exceeded",
            )
        return asked or min(room, self.longest_answer)


def _check_wanted(answer: Answer) -> None:
    """End the work on an answer that nobody waits for; the refusal reaches nobody."""
    if not answer.wanted:
        raise Refusal(503, "Nobody waits for this answer any more.")


@contextmanager
def _told(answer: Answer) -> Iterator[None]:
    """Let the reader of an answer raise what the block raises."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told there
        no_room = isinstance(error, (MemoryError, RuntimeError)) and out_of_memory(error)
        told = "The request does not fit into the memory of this server."
        answer.fail(Refusal(413, told, code="out_of_memory") if no_room else error)
