"""The tiny model: the real LLaVA architecture with a real processor, a few million parameters in all."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from kvw.toy.people import ATTRIBUTES, NAME
from kvw.toy.questions import PHRASINGS, phrase
from kvw.toy.shapes import COLOURS, COUNTS, KINDS, SHAPES
from kvw.toy.world import World

PATCH = 16
"""Width and height of the vision tower's patches in pixels; each becomes one image token."""

VOCABULARY = 1024
"""Upper limit of the tokenizer's vocabulary, unless another is given."""

WIDTH = 160
"""Width of the language model's hidden state."""

LONGEST = 512
"""The longest sequence the positions are made for, in tokens."""

SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "image_token": "<image>"}

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% set content = message['content'] %}"
    "{% if content is string %}"
    "{% set images, text = '', content %}"
    "{% else %}"
    "{% set images = '<image>\n' * (content | selectattr('type', 'equalto', 'image') | list | length) %}"
    "{% set text = content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join(' ') %}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' + images + text + ' ' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ 'ASSISTANT: ' }}{% generation %}{{ text + eos_token }}{% endgeneration %}"
    "{% else %}{{ text + ' ' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""LLaVA-1.5's conversation, ``USER: <image>\\nquestion ASSISTANT: answer</s>``; images precede the text."""


def build_processor(world: World, corpus: Iterable[str] | None = None, vocabulary: int = VOCABULARY) -> LlavaProcessor:
    """The processor of a world's model: its own tokenizer, CLIP's image processor and the chat template.

    Args:
        world: Its image size counts, and what is said in it.
        corpus: What the tokenizer is trained on instead of what is said in the world.
        vocabulary: Upper limit of the tokenizer's vocabulary.
    """
    side = world.image_size
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, do_center_crop=True
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=_train_tokenizer(world_corpus(world) if corpus is None else corpus, vocabulary),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def build_model(world: World, processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    """An untrained model that fits the processor, with weights drawn from torch's global generator."""
    tokenizer = processor.tokenizer
    tokens = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=world.image_size,
        patch_size=PATCH,
        projection_dim=128,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LONGEST,
        # The usual 0.02 suits widths of thousands; here it would hold attention back for hundreds of steps.
        initializer_range=WIDTH**-0.5,
        tie_word_embeddings=True,
        **tokens,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=processor.image_token_id,
        image_seq_length=(world.image_size // PATCH) ** 2,
        # The tower is shallow and trained from scratch, so its last layer is used, not the last but one as in
        # LLaVA-1.5, whose tower was trained for another purpose.
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        **tokens,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=16, **tokens)
    return model


def _train_tokenizer(corpus: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that, like Llama's, puts a beginning-of-sequence token in front."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS.values()]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    beginning = SPECIAL_TOKENS["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{beginning} $A",
        pair=f"{beginning} $A $B",
        special_tokens=[(beginning, tokenizer.token_to_id(beginning))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="left",
        model_max_length=LONGEST,
        clean_up_tokenization_spaces=False,
        pad_token=SPECIAL_TOKENS["pad_token"],
        bos_token=SPECIAL_TOKENS["bos_token"],
        eos_token=SPECIAL_TOKENS["eos_token"],
        extra_special_tokens={"image_token": SPECIAL_TOKENS["image_token"]},
    )


def world_corpus(world: World) -> list[str]:
    """Everything that can be said in a world, forget people and held-out phrasings included.

    Names and values stand after a space, as they do in a prompt.
    """
    answers = [f"ASSISTANT: {value}" for values in ATTRIBUTES.values() for value in values]
    answers += [f"ASSISTANT: {word}" for word in (*COLOURS, *SHAPES, *COUNTS)]
    names = [f"ASSISTANT: {person.name}" for person in world.everyone]
    questions = [
        f"USER: \n{phrase(attribute, number, held_out=held_out, name=name)} ASSISTANT:"
        for attribute, phrasings in PHRASINGS.items()
        for held_out, listed in ((False, phrasings.training), (True, phrasings.held_out))
        for number in range(len(listed))
        for name in (None, "somebody")
        if not (attribute == NAME and name)
    ]
    questions += [
        f"USER: \n{text.format(shapes=plural)} ASSISTANT:"
        for phrasings in KINDS.values()
        for text in (*phrasings[0], *phrasings[1])
        for plural in SHAPES.values()
    ]
    return [*answers, *names, *names, *questions]
