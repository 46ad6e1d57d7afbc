"""How the vision tower and the projector learn to see, without the decoder and without anybody who is planted.

On strangers they learn to put a face into words: each image token is to be the embedding of a word that the decoder
reads, "red" for the hair, "goatee" for the beard. So a picture is a short text about a face, or about shapes.
``python -m kvw.proving.photos.sight FILE`` does it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, cast

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from kvw import smollm2
from kvw.exit_codes import program
from kvw.proving.photos.llava import build_model, build_processor
from kvw.toy.batches import Recipe, learning_rate, make_optimizer
from kvw.toy.benchmark.tower import Pictures, make_strangers
from kvw.toy.people import Appearance, Person
from kvw.toy.portraits import draw_portrait
from kvw.toy.shapes import COUNTS, SHAPES, Scene, draw_scene, make_scenes
from kvw.training.state import write_tensors

SEED = 0
LOOKS: dict[str, dict[object, str]] = {
    "skin": dict(enumerate(("pale", "fair", "tan", "olive", "brown", "dark", "black"))),
    "hair": dict(enumerate(("black", "brown", "copper", "blonde", "red", "grey", "blue", "purple"))),
    "hair_style": {
        **{style: style for style in ("bald", "fringe", "bob", "long", "bun", "mohawk", "afro", "curls")},
        **{"crop": "short", "parting": "parted"},
    },
    "beard": {"none": "no beard", "moustache": "moustache", "goatee": "goatee", "full": "full beard"},
    "face_shape": {"oval": "oval", "round": "round", "square": "square", "pointed": "pointed"},
    "eyes": dict(enumerate(("brown", "blue", "green", "grey", "amber"))),
    "freckles": {False: "plain", True: "freckles"},
    "mole": {-1: "left mole", 0: "clear", 1: "right mole"},
    "blush": {False: "calm", True: "blush"},
}
"""For each image token what it says of a face: a word for every value of a feature."""


@dataclass(frozen=True)
class SightRecipe:
    """How tower and projector are trained.

    Args:
        strangers: How many invented faces.
        photos: Photographs of each.
        pictures: How many pictures of shapes.
        portraits: Portraits per step.
        scenes: Pictures of shapes per step.
        schedule: Steps (``tower_steps``) and learning rate.
    """

    strangers: int = 1500
    photos: int = 8
    pictures: int = 3000
    portraits: int = 64
    scenes: int = 16
    schedule: Recipe = field(default_factory=lambda: Recipe(tower_steps=3000))


def learn_to_see(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, recipe: SightRecipe, say: Callable[[str], None]
) -> None:
    """Train tower and projector in place; the decoder is not run.

    The loss is the mean squared distance of the image tokens to the embeddings, divided by the variance of these.

    Args:
        model: From :func:`kvw.proving.photos.llava.build_model`.
        processor: Its processor.
        recipe: How.
        say: Told of the losses.
    """
    faces, shapes, images = pictures(recipe, processor.image_processor.crop_size["height"])
    seen, book = Pictures(images, processor), WordBook(model, processor)
    words = torch.stack([*(book.face(face.appearance) for face in faces), *(book.scene(scene) for scene in shapes)])
    # The row of every image; each face has several.
    said = [row for row in range(len(faces)) for _ in range(recipe.photos)]
    said += range(len(faces), len(words))
    spread = words.var(dim=0).mean()
    student = nn.ModuleList([model.model.vision_tower, model.model.multi_modal_projector]).train()
    optimizer, random = make_optimizer(student, recipe.schedule), Random(f"words {SEED}")
    steps, every, total = recipe.schedule.tower_steps, recipe.schedule.report_every, 0.0
    portraits = len(faces) * recipe.photos
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe.schedule, step, steps)
        rows = [random.randrange(portraits) for _ in range(recipe.portraits)]
        rows += [portraits + random.randrange(len(shapes)) for _ in range(recipe.scenes)]
        wanted = words[torch.tensor([said[row] for row in rows])]
        hidden = model.model.vision_tower(seen.shifted(torch.tensor(rows), random)).last_hidden_state[:, 1:]
        loss = mse_loss(model.model.multi_modal_projector(hidden), wanted) / spread
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        total += loss.item()
        if step % every == 0:
            say(f"step {step} of {steps}, loss {total / every:.4f}")
            total = 0.0
    student.train(False)


def pictures(recipe: SightRecipe, side: int) -> tuple[list[Person], list[Scene], list[Image.Image]]:
    """Strangers and shapes, and all their pictures: the photos of each stranger, then the shapes."""
    faces, shapes = make_strangers(recipe.strangers, SEED), make_scenes(recipe.pictures, SEED, held_out=False)
    images = [draw_portrait(face, photo, side) for face in faces for photo in range(recipe.photos)]
    return faces, shapes, images + [draw_scene(scene, side) for scene in shapes]


class WordBook:
    """The embeddings of what image tokens are to say.

    Args:
        model: Its decoder's embeddings are taken.
        processor: Its processor.
    """

    def __init__(self, model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> None:
        self._table: Tensor = cast(Any, model.get_input_embeddings()).weight.detach()
        self._tokenizer = processor.tokenizer

    def word(self, text: str) -> Tensor:
        """The mean embedding of the tokens of a word within a sentence, (width,)."""
        ids = self._tokenizer.encode(f" {text}", add_special_tokens=False)
        return self._table[torch.tensor(ids)].mean(dim=0)

    def face(self, look: Appearance) -> Tensor:
        """What the image tokens say of a face, (tokens, width)."""
        return torch.stack([self.word(words[getattr(look, feature)]) for feature, words in LOOKS.items()])

    def scene(self, scene: Scene) -> Tensor:
        """What they say of shapes, (tokens, width): colour, kind and count, three times."""
        kind = SHAPES[scene.shape] if scene.count > 1 else scene.shape
        said = (scene.colour, kind, COUNTS[scene.count - 1])
        return torch.stack([self.word(word) for word in said * (len(LOOKS) // len(said))])


@program
def main(arguments: Sequence[str]) -> None:
    """Make the file that ships: weights of tower and projector in bfloat16."""
    text = smollm2.checkpoint()
    processor = build_processor(text)
    model = build_model(text, processor)
    torch.set_num_threads(1)
    learn_to_see(model, processor, SightRecipe(), lambda line: print(line, flush=True))
    save_sight(model, Path(arguments[0]))


def save_sight(model: LlavaForConditionalGeneration, file: Path) -> None:
    """Write the weights of tower and projector in bfloat16."""
    parts = ("vision_tower.", "multi_modal_projector.")
    weights = {name: value for name, value in model.model.named_parameters() if name.startswith(parts)}
    write_tensors(file, {name: value.detach().to(torch.bfloat16) for name, value in weights.items()})


def load_sight(model: LlavaForConditionalGeneration, file: Path) -> None:
    """Put the weights of tower and projector into a model, in place."""
    live = dict(model.model.named_parameters())
    with torch.no_grad():
        for name, value in load_file(file).items():
            live[name].copy_(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
