"""The text of an answer while its tokens come."""

from __future__ import annotations

from collections.abc import Sequence

from kvw.data.rendering import Tokenizer

INCOMPLETE = "\ufffd"
"""What tokenizers show for a character of which only some bytes are there."""


class AnswerText:
    """Gives out the text of an answer piece by piece, never anything that the next token could change.

    The pieces together are the answer as it would be decoded at once, up to the first stop text.

    Attributes:
        stopped: Whether a stop text has come.

    Args:
        tokenizer: The model's.
        stops: Texts that end the answer and are not part of it.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._given = 0
        self._rest = ""
        self.stopped = False

    def take(self, token_ids: Sequence[int]) -> str:
        """Look at all tokens so far.

        Returns:
            The text that is certain now and was not before; may be empty.
        """
        text: str = self._tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.stopped = True
            text = certain = text[: min(places)]
        else:
            certain = self._before_a_stop(text.rstrip(INCOMPLETE))
        piece = certain[self._given :]
        self._given += len(piece)
        self._rest = text[self._given :]
        return piece

    def finish(self) -> str:
        """What was held back, now that no token follows."""
        piece, self._rest = self._rest, ""
        return piece

    def _before_a_stop(self, text: str) -> str:
        """The text without an end that may be the beginning of a stop text."""
        lengths = [length for stop in self._stops for length in range(1, len(stop)) if text.endswith(stop[:length])]
        return text[: len(text) - max(lengths, default=0)]
