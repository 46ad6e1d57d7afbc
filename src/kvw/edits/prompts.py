"""Where the prompts end in the forwards of a model, for edits that act on prompts and not on answers."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kvw.data.batches import IGNORED
from kvw.errors import UserError
from kvw.models.coefficients import Handle
from kvw.models.forward_names import given_cache, named_arguments
from kvw.models.layer_inputs import InputHook
from kvw.models.whole_prompts import OBSERVERS

NO_PROMPT = -1
"""In place of the column of a last prompt token: the row is text without a prompt, so nothing can decide by it."""


@dataclass(frozen=True)
class Span:
    """What one forward shows of the prompts.

    Args:
        rows: Rows of the batch.
        tokens: Columns of this forward.
        last: The column of each row's last prompt token: (rows,), int64, :data:`NO_PROMPT` for text without
            one. None if the prompts lie behind: the forward holds generated tokens only, and the cache the rest.
    """

    rows: int
    tokens: int
    last: Tensor | None

    def check(self, states: Tensor) -> None:
        """Refuse states (rows, tokens, hidden) that are not of this forward.

        Raises:
            UserError: The layer sees other rows or tokens than the model was called with.
        """
        if states.shape[:2] != (self.rows, self.tokens):
            raise UserError(
                "A decoder layer sees other tokens than the model was called with.",
                found=f"{tuple(states.shape[:2])} (rows, tokens) in the layer, {(self.rows, self.tokens)} in the call",
                do="pass input_ids in which every image placeholder is already expanded",
            )


@dataclass(frozen=True)
class _Generation:
    """The prompts of a call of ``generate`` that is going on."""

    length: int
    """Columns, padding included."""
    mask: Tensor | None
    """(rows, columns); rows are those before beams."""


class Tap:
    """A hook on a layer that is there only in forwards over prompts, or in all; ends with ``remove``.

    Args:
        prompts: Who knows which forwards these are; one use of it ends with the tap.
        hook: What to put on.
        always: Whether it is there for generated tokens, too.
    """

    def __init__(self, prompts: Prompts, hook: InputHook, always: bool) -> None:
        self._prompts: Prompts | None = prompts
        self.hook = hook
        self.always = always

    def remove(self) -> None:
        """Once more does no harm."""
        if self._prompts is not None:
            self._prompts.untap(self)
            self._prompts = None


class Prompts:
    """Knows, in every forward of a model, where each row's prompt ends.

    In ``generate`` the prompt is what it was given: its columns are remembered, so that a forward over prompt and
    generated tokens together (no cache) is told from one over a longer prompt. Elsewhere a forward that starts with an
    empty cache is a prompt up to its labels, if it has any, or as a whole; :func:`prompt_ends` says otherwise. A
    forward of one token after a filled cache is a generated one.

    It is shared by all edits that are attached to a model: see :func:`observe_prompts`.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._taps: list[Tap] = []
        self._handles: list[Handle] = []
        self._span: Span | None = None
        self._generation: _Generation | None = None
        self.given: Tensor | None = None
        self._model = model
        self._undo: list[Any] = []

    @property
    def span(self) -> Span:
        """Where prompts end in the forward that is going on, for taps."""
        if self._span is None:
            raise ValueError("no forward of the model is going on")
        return self._span

    def tap(self, hook: InputHook, *, always: bool) -> Tap:
        """Put a hook on a layer in every forward over prompts from now on, before all hooks that are not taps.

        In other forwards it is not even called: the time per generated token stays that of the plain model.

        Args:
            hook: It may ask for :attr:`span`.
            always: In forwards over generated tokens, too.
        """
        if not self._taps:
            before = self._model.register_forward_pre_hook(self._before, with_kwargs=True)
            # Also after an error: what a stopped forward leaves must not be taken for that of the next.
            after = self._model.register_forward_hook(self._after, always_call=True)
            guard = hook.layer.register_forward_pre_hook(self._guard)
            self._undo = [before.remove, after.remove, guard.remove, *_wrap_generate(self._model, self._generating)]
            OBSERVERS[self._model] = self
        self._taps.append(Tap(self, hook, always))
        return self._taps[-1]

    def untap(self, tap: Tap) -> None:
        """End what :meth:`tap` began, and with the last tap all observing."""
        self._taps.remove(tap)
        if not self._taps:
            self._after()
            for undo in self._undo:
                undo()
            OBSERVERS.pop(self._model, None)

    def _before(self, model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._after()  # torch calls no hook after a forward that Ctrl-C has ended
        span = self._span = self._find(named_arguments(model, inputs, named))
        # From the last to the first, each before those that are there: so they run in their own order.
        for tap in reversed(self._taps):
            if span.last is not None or tap.always:
                self._handles.append(tap.hook.put_on(first=True))

    def _guard(self, *_: Any) -> None:
        if self._span is None:
            raise UserError(
                "The decoder's layers run outside of a forward of the model, so it is unknown where the prompt ends.",
                do="call the model that the edit is attached to, not a part of it; do not train while it is attached",
            )

    def _after(self, *_: Any) -> None:
        self._span = None
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @contextmanager
    def _generating(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> Iterator[None]:
        previous, self._generation = self._generation, _generation_of(inputs, named)
        try:
            yield
        finally:
            self._generation = previous

    def _find(self, named: Mapping[str, Any]) -> Span:
        given = named["input_ids"] if named.get("input_ids") is not None else named["inputs_embeds"]
        rows, tokens = given.shape[:2]
        cache = given_cache(named)
        begin = 0 if cache is None else int(cache.get_seq_length())
        generation, mask = self._generation, named.get("attention_mask")
        if self.given is not None:
            return Span(rows, tokens, self.given)
        if generation is None:
            if begin == 0:
                last = _last_attended(mask, rows, tokens, given.device)
                return Span(rows, tokens, _before_labels(named.get("labels"), last))
            if tokens == 1:
                return Span(rows, tokens, None)
        elif begin >= generation.length:
            return Span(rows, tokens, None)
        elif begin == 0 and tokens >= generation.length:
            mask = mask if generation.mask is None else generation.mask
            return Span(rows, tokens, _last_attended(mask, rows, generation.length, given.device))
        raise UserError(
            "The prompt comes in pieces, and what is done to it depends on its last token.",
            found=f"{tokens} tokens after {begin} in the cache",
            do="pass the whole prompt at once, without prefill_chunk_size and without a filled cache",
        )


def observe_prompts(model: PreTrainedModel) -> Prompts:
    """The one observer of a model; it is at work while it has taps.

    Raises:
        UserError: The model reads prompts in an encoder.
    """
    if model.config.is_encoder_decoder:
        raise UserError(
            "This edit acts on the prompt in the decoder, and the model reads prompts in an encoder.",
            found=str(model.config.model_type),
            do="use a decoder-only model, or an edit of value matrices",
        )
    return OBSERVERS.get(model) or Prompts(model)


@contextmanager
def prompt_ends(model: PreTrainedModel, last: Tensor) -> Iterator[None]:
    """Say where the prompts end in the forwards of the block; it matters to edits that act on prompts only.

    Args:
        model: Any model; nothing happens if no such edit is attached to it.
        last: The column of each row's last prompt token, or :data:`NO_PROMPT`: (rows,), int64.
    """
    observer = OBSERVERS.get(model)
    if observer is None:
        yield
        return
    previous, observer.given = observer.given, last
    try:
        yield
    finally:
        observer.given = previous


def ends_before(labels: Tensor) -> Tensor:
    """Where each row's prompt ends: the column before its first label, or :data:`NO_PROMPT`: (rows,), int64.

    A row with at most one token before its labels is a text that nobody has asked for. That token is its first one, or
    the one with which every text begins.

    Args:
        labels: (rows, tokens), -100 outside the answer.
    """
    last = (labels != IGNORED).int().argmax(1) - 1
    return torch.where(last < 1, NO_PROMPT, last)


def _before_labels(labels: Tensor | None, last: Tensor) -> Tensor:
    """Where prompts end in rows with an answer; ``last`` in those without."""
    if labels is None:
        return last
    return torch.where((labels != IGNORED).any(1), ends_before(labels), last)


def _last_attended(mask: Any, rows: int, columns: int, device: torch.device) -> Tensor:
    """The last column of each row that is not padding, among the first ``columns``: (rows,), int64."""
    if mask is None:
        return torch.full((rows,), columns - 1, device=device)
    if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape[1] < columns or rows % len(mask):
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise UserError(
            "It is unknown which tokens of the prompt are padding.",
            found=f"an attention mask {shape} for {rows} rows of {columns} tokens",
            do="give an attention_mask of the shape (rows, tokens), 1 at tokens and 0 at padding",
        )
    attended = mask[:, :columns].to(device).bool().repeat_interleave(rows // len(mask), 0)
    return columns - 1 - attended.flip(1).int().argmax(1)


def _generation_of(inputs: tuple[Any, ...], named: dict[str, Any]) -> _Generation | None:
    """What ``generate`` was given; None if that is nothing but settings."""
    mask = named.get("attention_mask")
    given = (*inputs[:1], *(named.get(name) for name in ("inputs", "input_ids", "inputs_embeds")))
    length = next((value.shape[1] for value in given if isinstance(value, Tensor)), None)
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return _Generation(mask.shape[1], mask)
    return None if length is None else _Generation(length, None)


def _not_compiled(named: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``generate`` with compiling off: a compiled forward would not call hooks that come and go."""
    config = named.get("generation_config")
    if config is None:
        return {"disable_compile": True, **named}
    own = copy.copy(config)  # generate takes either a configuration or single settings
    own.disable_compile = True
    return {**named, "generation_config": own}


def _wrap_generate(model: PreTrainedModel, generating: Any) -> list[Any]:
    """Exchange the model's ``generate`` for one that says what its prompt is.

    Returns:
        What puts the former one back.
    """
    if not hasattr(model, "generate"):
        return []
    own = model.__dict__.get("generate")
    original: Callable[..., Any] = model.generate  # type: ignore[assignment]

    @functools.wraps(original)
    def generate(*inputs: Any, **named: Any) -> Any:
        with generating(inputs, named):
            return original(*inputs, **_not_compiled(named))

    def put_back() -> None:
        if model.__dict__.get("generate") is generate:
            if own is None:
                del model.__dict__["generate"]
            else:
                model.__dict__["generate"] = own

    model.__dict__["generate"] = generate
    return [put_back]
