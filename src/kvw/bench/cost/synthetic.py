"""Made-up examples, and a processor that turns them into batches of the sizes that real processors make.

Everything behind the processor is what a real run uses: rendering, answer spans, batches, losses. Only the contents are
made up: a text token is a character, a picture is noise.
"""

from __future__ import annotations

import random
import string
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor
from transformers import PretrainedConfig
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from kvw.bench.cost.recipe import DataPart
from kvw.data import Example
from kvw.data.images import png
from kvw.errors import UserError
from kvw.models.loading import is_text_model

IMAGE = "<image>"
LETTERS = string.ascii_lowercase
CHARACTERS = " " + LETTERS + string.ascii_uppercase + string.digits + ".,;:!?'\"-()"
SPECIAL_IDS = ("image_token_index", "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
QWEN = ("qwen2_vl", "qwen2_5_vl")
NO_IMAGE = -1
"""The id of pictures in models that see none."""
MIN_PIXELS, MAX_PIXELS = 56 * 56, 12_845_056
"""What the published processors of Qwen2-VL and Qwen2.5-VL keep pictures between."""


def made_up(data: DataPart, split: str, count: int, *, pictures: bool = True) -> list[Example]:
    """Examples of one length; two about each fact, four about each subject, as labels for methods that want them.

    Args:
        data: Lengths, and how many questions share a picture.
        split: ``forget`` or ``retain``; the two have no picture in common.
        count: Number of examples.
        pictures: Whether each has a picture.
    """
    draw = random.Random(split)
    examples: list[Example] = []
    for place in range(count):
        question, answer = ("".join(draw.choices(LETTERS, k=size)) for size in (data.question - 1, data.answer))
        if place % 2:  # the other view of a fact
            answer = examples[-1].answer
        subject = str(place // 4)
        question = f"{subject}{question}"[: len(question)]  # which some methods look for there
        picture = place // data.questions_per_image + (0 if split == "forget" else 1 << 20)
        shown = (_pixel(picture),) if pictures else ()
        # The tokenizer puts one space between question and answer.
        examples.append(Example(question, answer, shown, f"{split}:{place}", {"subject": subject}))
    return examples


class MadeUpProcessor:
    """What the pipeline asks of a Hugging Face processor, for LLaVA, Qwen2-VL, Qwen2.5-VL, and models of text alone.

    Args:
        config: Config of the model; says how many tokens a picture has, or with ``image`` how many pixels make a token.
        image: Width and height of every picture, for families that go by pixels.

    Raises:
        UserError: The family is another one.
    """

    chat_template = "made up: the picture, the question, a space, the answer"

    def __init__(self, config: PretrainedConfig, image: tuple[int, int]) -> None:
        self.sees = not is_text_model(config)
        self.image_token = IMAGE if self.sees else None
        self._vision = cast(Any, getattr(config, "vision_config", None))
        self._qwen = config.model_type in QWEN
        if not self.sees:
            self.image_tokens = 0
        elif self._qwen:
            side = self._vision.patch_size * self._vision.spatial_merge_size
            height, width = smart_resize(image[1], image[0], side, MIN_PIXELS, MAX_PIXELS)
            self._grid = (1, height // self._vision.patch_size, width // self._vision.patch_size)
            self.image_tokens = self._grid[1] * self._grid[2] // self._vision.spatial_merge_size**2
        elif config.model_type == "llava":
            patches = (self._vision.image_size // self._vision.patch_size) ** 2
            self.image_tokens = patches + (config.vision_feature_select_strategy == "full")
        else:
            raise UserError(
                f"Batches can be made up for LLaVA, Qwen2-VL and Qwen2.5-VL, not for {config.model_type}.",
                do="choose a model of one of these families",
            )
        self.tokenizer = CharacterTokenizer(config)

    def apply_chat_template(self, conversation: Sequence[Mapping[str, Any]], **_: Any) -> str:
        """The picture, the question, a space, and the answer if there is one."""
        parts = [part for message in conversation for part in message["content"]]
        shown = [IMAGE if part["type"] == "image" else part["text"] for part in parts]
        if len(conversation) == 1:
            return "".join(shown) + " "
        return "".join(shown[:-1]) + " " + shown[-1]

    def _get_num_multimodal_tokens(self, image_sizes: Sequence[Any]) -> dict[str, list[int]]:
        return {"num_image_tokens": [self.image_tokens] * len(image_sizes)}

    def __call__(
        self, text: Sequence[str], images: Sequence[Sequence[Any]] | None, *, padding_side: str, **_: Any
    ) -> dict[str, Tensor]:
        """Padded tensors under the names that the family's processor gives them."""
        image_id = self.tokenizer.image_id
        rows = []
        for line in text:
            tokens = self.tokenizer.encode(line)
            rows.append([one for token in tokens for one in [token] * (self.image_tokens if token == image_id else 1)])
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.tokenizer.pad_id)
        mask = torch.zeros((len(rows), longest), dtype=torch.int64)
        for row, tokens in enumerate(rows):
            start = 0 if padding_side == "right" else longest - len(tokens)
            ids[row, start : start + len(tokens)] = torch.tensor(tokens)
            mask[row, start : start + len(tokens)] = 1
        batch = {"input_ids": ids, "attention_mask": mask}
        return batch | self._pictures(sum(map(len, images or ())), ids)

    def _pictures(self, count: int, ids: Tensor) -> dict[str, Tensor]:
        if not self.sees:
            return {}
        vision, noise = self._vision, torch.Generator().manual_seed(count)
        if not self._qwen:
            size = (count, 3, vision.image_size, vision.image_size)
            return {"pixel_values": torch.randn(size, generator=noise)} if count else {}
        kinds = {"mm_token_type_ids": (ids == self.tokenizer.image_id).long()}
        if not count:
            return kinds
        patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        patches = count * self._grid[1] * self._grid[2]
        return kinds | {
            "pixel_values": torch.randn((patches, patch), generator=noise),
            "image_grid_thw": torch.tensor([self._grid] * count),
        }


class CharacterTokenizer:
    """A token for each character, and one for a picture.

    Args:
        config: Its special tokens are kept clear of.

    Raises:
        UserError: The vocabulary is too small.
    """

    bos_token = None
    pad_token, eos_token = "<pad>", "<end>"

    def __init__(self, config: PretrainedConfig) -> None:
        special = {getattr(config, name, None) for name in SPECIAL_IDS}
        vocabulary = config.get_text_config().vocab_size
        free = [number for number in range(vocabulary) if number not in special]
        if len(free) <= len(CHARACTERS):
            raise UserError(
                "The vocabulary is too small for made-up texts.",
                found=f"{vocabulary} tokens",
                do="take a model with a larger vocabulary",
            )
        self.pad_id = free[0]
        pictures = {} if is_text_model(config) else {IMAGE: int(config.image_token_id)}
        self.image_id = pictures.get(IMAGE, NO_IMAGE)
        self._ids = {**dict(zip(CHARACTERS, free[1:], strict=False)), **pictures}
        self._texts = {number: text for text, number in self._ids.items()}

    def encode(self, text: str) -> list[int]:
        """Token ids of a text.

        Raises:
            UserError: It has a character that there is no token for.
        """
        ids: list[int] = []
        for place, piece in enumerate(text.split(IMAGE)):
            ids += [self.image_id] if place else []
            if unknown := set(piece) - self._ids.keys():
                raise UserError(
                    "Made-up texts have few characters.",
                    found=repr(min(unknown)),
                    do="write them with letters, digits and spaces",
                )
            ids += [self._ids[character] for character in piece]
        return ids

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        """Token ids; there are no special tokens to add."""
        return {"input_ids": self.encode(text)}

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        """The text of token ids."""
        return "".join(self._texts[int(number)] for number in ids)

    def convert_tokens_to_ids(self, tokens: Sequence[str]) -> list[int]:
        """Ids of single tokens."""
        return [self._ids[token] for token in tokens]


def _pixel(number: int) -> bytes:
    """A picture of one pixel, in a colour of its own; only its identity matters."""
    return png(Image.new("RGB", (1, 1), (number >> 16 & 255, number >> 8 & 255, number & 255)))
