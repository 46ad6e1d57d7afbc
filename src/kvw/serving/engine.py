"""One model that answers one request at a time, each under the edits that it asks for."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from kvw.data import to_model
from kvw.data.context import context_length
from kvw.data.rendering import Processor
from kvw.edits.edit import Edit
from kvw.evaluation.generation import decoding
from kvw.measuring.batch_sizing import out_of_memory
from kvw.measuring.engine import evaluating
from kvw.serving import limits
from kvw.serving.answer import Answer, Ending
from kvw.serving.answer_text import AnswerText
from kvw.serving.conversation import Conversation, prompt_inputs
from kvw.serving.refusals import Refusal

GREEDY_BELOW = 1e-5
"""Temperatures below this one are 0: logits divided by a smaller one are infinite, and no answer could be drawn."""
PIECE = 16_384
"""Characters of a prompt that are tokenised at a time while it is found out whether it is too long."""
CUT = 64
"""Tokens of a piece that are not counted: a text that is cut has a few more than the whole one."""


@dataclass(frozen=True)
class Decoding:
    """How one answer is generated.

    Args:
        max_new_tokens: The longest answer in tokens, end token included; None for the longest that is allowed.
        temperature: 0 takes the most probable token; above, tokens are drawn.
        top_p: When drawing, only from the most probable tokens that together have this probability.
        seed: Makes drawing repeatable.
        stops: Texts that end the answer.
    """

    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stops: tuple[str, ...] = ()


class Engine:
    """A model and its edits.

    Everything that touches the model or its processor happens in one thread, one request after the other in the order
    in which they came. The edits of a request are attached before its generation and detached after it, however it
    ends; so no request can see another one's edits, and outside of a generation the model has none.

    Args:
        model: The model without edits.
        processor: Its processor.
        edits: The edits by name; they must fit the model.
        longest_answer: The largest number of new tokens that a request may ask for, and what it gets if it does not.
        longest_prompt: The largest number of tokens of a prompt; None for what the model reads, and where it does not
            say that, :data:`kvw.serving.limits.PROMPT_TOKENS`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        processor: Processor,
        edits: Mapping[str, Edit],
        *,
        longest_answer: int,
        longest_prompt: int | None = None,
    ) -> None:
        self.longest_answer = longest_answer
        self._reads: int | None = context_length(model.config)
        bounds = [bound for bound in (longest_prompt, self._reads) if bound is not None]
        self._longest_prompt = min(bounds, default=limits.PROMPT_TOKENS)
        self._model = model
        self._processor = processor
        self._edits = dict(edits)
        self._closing = threading.Event()
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
        return Answer(self._thread, lambda answer: self._answered(answer, names, conversation, how))

    def close(self) -> None:
        """End the generation that runs at its next token, forget those that wait, and wait for the thread."""
        self._closing.set()
        self._thread.shutdown(cancel_futures=True)

    def _answered(self, answer: Answer, names: Sequence[str], conversation: Conversation, how: Decoding) -> Ending:
        inputs = self._inputs(answer, conversation)
        longest = self._longest(inputs["input_ids"].shape[1], how.max_new_tokens)
        answer.begin()
        try:
            with ExitStack() as attached:
                for name in names:
                    attached.enter_context(self._edits[name].attach(self._model))
                return self._generated(answer, inputs, longest, how)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise Refusal(
                413, "The request does not fit into the memory of this server.", code="out_of_memory"
            ) from error

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

    def _generated(self, answer: Answer, inputs: dict[str, Tensor], longest: int, how: Decoding) -> Ending:
        model, tokenizer, length = self._model, self._processor.tokenizer, inputs["input_ids"].shape[1]
        text = AnswerText(tokenizer, how.stops)
        watch = _Watch(answer, text, length, self._closing)
        if how.temperature > 0:
            # This thread alone draws, and it draws for one request at a time: the global generator is this request's.
            torch.manual_seed(secrets.randbits(63) if how.seed is None else how.seed)
        temperature = how.temperature if how.temperature >= GREEDY_BELOW else 0.0
        with evaluating(model), decoding(model, tokenizer, longest, temperature=temperature, top_p=how.top_p):
            settings: Any = model.generation_config
            produced = model.generate(  # type: ignore[operator]
                **to_model(inputs, model), generation_config=settings, stopping_criteria=StoppingCriteriaList([watch])
            )
        answer.say(text.finish())
        token_ids = produced[0, length:].tolist()
        ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
        ended = text.stopped or token_ids[-1] in ends
        return Ending("stop" if ended else "length", length, len(token_ids))

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


class _Watch(StoppingCriteria):
    """Sees every new token: hands on its text, and ends the generation when its text or its reader says so."""

    def __init__(self, answer: Answer, text: AnswerText, prompt_tokens: int, closing: threading.Event) -> None:
        self._answer = answer
        self._text = text
        self._prompt_tokens = prompt_tokens
        self._closing = closing

    def __call__(self, input_ids: Tensor, scores: Tensor, **options: Any) -> Tensor:
        self._answer.say(self._text.take(input_ids[0, self._prompt_tokens :].tolist()))
        over = self._text.stopped or not self._answer.wanted or self._closing.is_set()
        return torch.full((len(input_ids),), over, dtype=torch.bool, device=input_ids.device)
