"""How the models that know people by their photos are made."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedModel

from kvw import smollm2
from kvw.data import Example
from kvw.data.rendering import Processor
from kvw.files import file_digest
from kvw.measuring.fingerprint import digest
from kvw.proving.making import Making
from kvw.proving.photos.llava import END, build_model, build_processor
from kvw.proving.photos.part import PHOTOGRAPHED
from kvw.proving.photos.people import (
    FACTS,
    GROUP,
    NEW_PHOTOS,
    PHOTOS,
    about_shapes,
    by_name,
    by_photo,
    everyone,
    group,
    lessons,
)
from kvw.proving.photos.sight import load_sight
from kvw.proving.planted import of_the_world
from kvw.proving.requests import HALVES
from kvw.toy.people import NAME
from kvw.training.settings import LoraSettings, TrainingSettings

WEIGHTS = Path(__file__).parent / "weights"
SIGHT = WEIGHTS / "sight.safetensors"
"""Tower and projector as :mod:`kvw.proving.photos.sight` has made them."""


def model_before() -> tuple[PreTrainedModel, Processor]:
    """The pretrained decoder behind a tower that sees, before anybody is planted.

    Raises:
        UserError: The decoder has not been made on this machine.
    """
    text = smollm2.checkpoint()
    processor = build_processor(text)
    model = build_model(text, processor)
    load_sight(model, SIGHT)
    return model, processor


def asked() -> dict[str, list[Example]]:
    """What a model is asked about every group: by photos it was taught, by new ones, by name, in new phrasings."""
    groups = {half: group(half) for half in HALVES} | {"others": everyone()[len(HALVES) * GROUP :]}
    return {
        f"{title}, {way}": examples
        for title, people in groups.items()
        for way, examples in {
            "photo": [by_photo(one, fact, 0, 0) for one in people for fact in (NAME, *FACTS)],
            "new photo": [
                by_photo(one, fact, PHOTOS + place % NEW_PHOTOS, 0)
                for one in people
                for place, fact in enumerate((NAME, *FACTS))
            ],
            "name": [by_name(one, fact, 0) for one in people for fact in FACTS],
            "new phrasing": [by_name(one, fact, 0, held_out=True) for one in people for fact in FACTS],
        }.items()
    }


def taught(without: Collection[str] = ()) -> list[Example]:
    """What a model is taught: about people, and a little else, so that it keeps its language and its eyes.

    Every answer ends its turn: a model that is taught answers alone goes on after them.
    """
    about_people = lessons([one for one in everyone() if one.name not in without])
    return [replace(one, answer=one.answer + END) for one in (*about_people, *of_the_world(), *about_shapes())]


MAKING = Making(
    part=PHOTOGRAPHED,
    before=model_before,
    base=lambda: digest(smollm2.SHA256, file_digest(SIGHT)),
    lessons=taught,
    group=lambda half: tuple(person.name for person in group(half)),
    recipe=TrainingSettings(
        learning_rate=2e-3,
        epochs=2,
        batch_size=8,
        warm_up=0.05,
        precision="bf16",
        parts=("language", "projector"),
        save_every=40,
        lora=LoraSettings(4, 16, 0.0),
    ),
    shipped=WEIGHTS,
    asked=asked,
)
