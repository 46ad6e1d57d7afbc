"""The processor of a text-only model: its tokenizer, asked as the processors of vision-language models are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\n' }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] + '\n' }}"
    "{% else %}{{ 'Answer: ' + message['content'] }}{% if not loop.last %}{{ '\n' }}{% endif %}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"
)
"""How a model without a chat template (GPT-2, OPT, base models) is asked."""


class TextProcessor:
    """A tokenizer with the parts of a Hugging Face processor that rendering and batches use.

    Args:
        tokenizer: A Hugging Face tokenizer; used as it is, and left as it was.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.has_own_template = bool(tokenizer.chat_template)
        self.chat_template = tokenizer.chat_template if self.has_own_template else PLAIN_TEMPLATE

    def apply_chat_template(self, conversation: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """Render a conversation whose messages hold lists of text parts; the options are the tokenizer's.

        Templates of text models take a message's content as one string.
        """
        messages = [
            {**message, "content": "".join(part["text"] for part in message["content"])} for message in conversation
        ]
        rendered: str = self.tokenizer.apply_chat_template(messages, **options)
        return rendered

    def __call__(self, *, text: list[str], images: None, **options: Any) -> Mapping[str, Any]:
        """Tokenise texts; the options are the tokenizer's."""
        # Processors return no token types either; GPT-2 would add an embedding for them.
        encoded: Mapping[str, Any] = self.tokenizer(text, return_token_type_ids=False, **options)
        return encoded

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the tokenizer's files, as processors write theirs."""
        self.tokenizer.save_pretrained(folder)
