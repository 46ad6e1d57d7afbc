"""Settings of a checkpoint that do not fit together, put right where another of its files knows better."""

from __future__ import annotations

import logging
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from kvw.data.placeholders import IMAGE_PLACEHOLDERS, placeholders_of
from kvw.data.templates import Processor
from kvw.data.thoughts import answer_place
from kvw.errors import UserError

logger = logging.getLogger(__name__)

FROM_THE_MODEL = ("patch_size", "vision_feature_select_strategy")
"""What processors of older checkpoints lack, and count image tokens by."""


def repair_processor(processor: Processor, config: PretrainedConfig) -> None:
    """Give a processor what its own configuration leaves out and the model's has; a note is logged.

    Args:
        processor: A Hugging Face processor, changed in place.
        config: The configuration of the model.

    Raises:
        UserError: The model's configuration does not have it either.
    """
    missing = [name for name in FROM_THE_MODEL if getattr(processor, name, "there") is None]
    for name in missing:
        value = _of_the_model(config, name)
        if value is None:
            raise UserError(
                f"The processor lacks {name}, without which image tokens cannot be counted.",
                found="neither processor_config.json nor config.json has it",
                do=f"set {name} in processor_config.json",
            )
        setattr(processor, name, value)
        logger.warning("The processor's configuration lacks %s; the model's says %s, which is used.", name, value)
    if "patch_size" in missing and getattr(processor, "num_additional_image_tokens", None) == 0:
        processor.num_additional_image_tokens = _additional(config)


def repair_tokens(model: PreTrainedModel, processor: Processor) -> None:
    """Put right which tokens end an answer and which one pads, where the tokenizer knows better; a note is logged.

    The token that the chat template puts after an answer ends one, too. Ids that the model has no embedding for are
    left out.

    Args:
        model: Its generation settings are changed in place.
        processor: Its processor; a padding token that the model does not have is exchanged for the end token.
    """
    settings: Any = model.generation_config
    tokenizer = processor.tokenizer
    if settings is None:
        return
    rows = len(model.get_input_embeddings().get_parameter("weight"))
    stated = _listed(settings.eos_token_id)
    ends = [token for token in stated if 0 <= token < rows]
    if len(ends) < len(stated):
        _note("The generation settings name end tokens %s that the model does not have", set(stated) - set(ends))
    own = tokenizer.eos_token_id
    if not ends and own is not None and own < rows:
        ends = [own]
    turn = _end_of_turn(processor)
    if turn is not None and turn < rows and turn not in ends:
        shown = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(ends))) or "nothing"
        logger.warning(
            "The generation settings end an answer at %s, the chat template at %r; both are taken.",
            shown,
            tokenizer.convert_ids_to_tokens(turn),
        )
        ends.append(turn)
    if ends != stated:
        settings.eos_token_id = ends or None
    padding = settings.pad_token_id
    if padding is not None and not 0 <= padding < rows:
        _note("The generation settings pad with token %s, which the model does not have", padding)
        settings.pad_token_id = None
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= rows:
        _note("The tokenizer pads with token %s, which the model does not have", tokenizer.pad_token_id)
        tokenizer.pad_token = None


def _note(text: str, value: object) -> None:
    logger.warning(text + "; the tokenizer's end token takes its place.", value)


def _of_the_model(config: PretrainedConfig, name: str) -> Any:
    value = getattr(config, name, None) or getattr(getattr(config, "vision_config", None), name, None)
    return value[0] if isinstance(value, list | tuple) else value


def _additional(config: PretrainedConfig) -> int:
    """Tokens that a picture has beside its patches: one in CLIP, for the picture as a whole."""
    return int("clip" in str(getattr(getattr(config, "vision_config", None), "model_type", "")))


def _listed(tokens: int | list[int] | None) -> list[int]:
    return [] if tokens is None else [tokens] if isinstance(tokens, int) else list(tokens)


def _end_of_turn(processor: Processor) -> int | None:
    """The special token that the chat template puts after an answer; None if there is none."""
    question = {"role": "user", "content": [{"type": "text", "text": "Who is this?"}]}
    try:
        placeholders = placeholders_of(processor, IMAGE_PLACEHOLDERS)
        after = answer_place("chat template", processor, [question], placeholders).after.strip()
    except UserError:  # told when a question is asked in earnest
        return None
    known = processor.tokenizer.get_added_vocab()
    longest = max((token for token in known if token and after.startswith(token)), key=len, default=None)
    return None if longest is None else int(known[longest])
