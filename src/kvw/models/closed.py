"""A model that is reached only through its logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

Logits = Callable[[Tensor, Tensor], Tensor]
"""From token ids and attention mask, (rows, tokens) both, to logits (rows, tokens, vocabulary)."""


class LogitsModel(PreTrainedModel, GenerationMixin):
    """A model of text whose weights are elsewhere: all that is known of it are logits.

    It can be asked, scored and served, and an edit that acts on logits can be attached to it. It keeps no keys and
    values, so each token is answered from the whole text.

    Args:
        logits: Answers; called without gradients.
        config: Its configuration: vocabulary, context length and end tokens.
    """

    _supports_sdpa = True  # it has no attention of its own, and any will do

    def __init__(self, logits: Logits, config: PretrainedConfig) -> None:
        super().__init__(config)
        self._logits = logits
        self.embed_tokens = nn.Embedding(1, 1)  # says on which device it is
        self.requires_grad_(False)
        self.train(False)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        use_cache: bool = False,
        return_dict: bool = True,
    ) -> CausalLMOutput:
        """Logits for the columns that are asked for; the last two arguments ask for nothing."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        keep = logits_to_keep
        columns = slice(-keep if keep else None, None) if isinstance(keep, int) else keep
        with torch.no_grad():
            return CausalLMOutput(logits=self._logits(input_ids, mask)[:, columns])

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> dict[str, Any]:
        """The whole text each time."""
        return {"input_ids": input_ids, "attention_mask": attention_mask}
