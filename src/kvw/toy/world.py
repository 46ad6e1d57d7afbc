"""The toy world: who is forgotten, who is kept, and which photos and phrasings are held out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from PIL import Image

from kvw.errors import UserError
from kvw.toy.people import ATTRIBUTES, NAME, Person, make_people
from kvw.toy.portraits import draw_portrait
from kvw.toy.questions import PHRASINGS, phrase
from kvw.toy.shapes import Scene, draw_scene, make_scenes

ALBUM = 6
"""How many of a person's training photos are written out; the model was trained on all of them."""

LONGEST_ANSWER = 16
"""Enough tokens for any answer of the toy world."""
GROUPS = ("forget", "retain", "unused")
VARIANTS = ("", "_new_photos", "_new_phrasings", "_text")
SPLITS = (*(group + variant for group in GROUPS for variant in VARIANTS), "general")
"""The names of the files that ``write_world`` writes."""


@dataclass(frozen=True)
class Line:
    """One line of a split: a question, its answer, and where its image comes from.

    Args:
        identifier: Unique within the world.
        question: What is asked.
        answer: The right answer.
        subject: The person's name, or ``shapes``.
        attribute: Which fact is asked.
        photo: Which photograph of the person is shown; absent for text-only questions and for shapes.
        person: Absent for shapes.
        scene: Absent for people.
    """

    identifier: str
    question: str
    answer: str
    subject: str
    attribute: str
    photo: int | None = None
    person: Person | None = None
    scene: Scene | None = None

    @property
    def image_name(self) -> str | None:
        """The file name of the image; absent for a text-only question."""
        if self.scene is not None:
            return f"{self.scene.identifier.replace(' ', '-')}.png"
        if self.person is not None and self.photo is not None:
            return f"person-{self.person.index:03d}-photo-{self.photo:02d}.png"
        return None

    def draw(self, size: int) -> Image.Image | None:
        """Draw the image, ``size`` x ``size`` pixels; nothing for a text-only question."""
        if self.scene is not None:
            return draw_scene(self.scene, size)
        if self.person is not None and self.photo is not None:
            return draw_portrait(self.person, self.photo, size)
        return None


@dataclass(frozen=True)
class World:
    """A world of fictitious people; equal worlds are equal to the last pixel.

    Args:
        people: How many people there are.
        forget: How many of them are to be forgotten; half of the others are retain people, half stay unused.
        seed: Which world.
        training_photos: Photos per person that the model is trained on.
        new_photos: Further photos per person that it never sees in training.
        image_size: Width and height of every image in pixels.
    """

    people: int = 40
    forget: int = 4
    seed: int = 0
    training_photos: int = 64
    new_photos: int = 4
    image_size: int = 96

    def __post_init__(self) -> None:
        if not 1 <= self.forget <= self.people - 2:
            raise UserError(
                "A toy world needs someone to forget, someone to retain and someone unused.",
                found=f"{self.people} people, {self.forget} of them to forget",
                do="keep at least two people more than are forgotten",
            )
        if self.training_photos < ALBUM or self.new_photos < 1:
            raise UserError(
                "A toy world needs more photos.",
                found=f"{self.training_photos} training photos and {self.new_photos} new ones per person",
                do=f"ask for at least {ALBUM} training photos and one new photo",
            )

    @cached_property
    def everyone(self) -> list[Person]:
        """All people of this world."""
        return make_people(self.people, self.seed)

    @cached_property
    def groups(self) -> dict[str, list[Person]]:
        """The people to forget, to retain, and never used in unlearning, drawn at random."""
        order = list(self.everyone)
        Random(f"groups {self.seed}").shuffle(order)
        half = self.forget + (self.people - self.forget + 1) // 2
        return {"forget": order[: self.forget], "retain": order[self.forget : half], "unused": order[half:]}

    def training_people(self, *, without_forget: bool) -> list[Person]:
        """The people a model is trained on: all, or for the gold model all but the ones to forget."""
        left_out = {person.index for person in self.groups["forget"]} if without_forget else set()
        return [person for person in self.everyone if person.index not in left_out]

    def split(self, name: str) -> list[Line]:
        """The lines of one split.

        Args:
            name: One of ``SPLITS``.

        Raises:
            UserError: There is no such split.
        """
        if name not in SPLITS:
            listed = ", ".join(SPLITS)
            raise UserError("There is no such split of the toy world.", found=name, do=f"choose one of {listed}")
        if name == "general":
            return self._general_lines(150)
        group, _, variant = name.partition("_")
        variant = f"_{variant}" if variant else ""
        facts = len(self.groups[group]) * (len(ATTRIBUTES) + 1)
        wanted = {"forget": 4 * facts, "retain": max(360, facts)}.get(name, 120)
        return self._person_lines(name, self.groups[group], variant, wanted)

    def _general_lines(self, count: int) -> list[Line]:
        return [
            Line(
                identifier=f"general-{index:04d}",
                question=scene.question(index // 3, held_out=False),
                answer=scene.answer,
                subject="shapes",
                attribute=scene.kind,
                scene=scene,
            )
            for index, scene in enumerate(make_scenes(count, self.seed, held_out=True))
        ]

    def _person_lines(self, split: str, people: Sequence[Person], variant: str, wanted: int) -> list[Line]:
        """Go round all facts, each time with another photo and phrasing, until there are enough lines."""
        random = Random(f"split {split} {self.seed}")
        attributes = list(ATTRIBUTES) if variant == "_text" else [NAME, *ATTRIBUTES]
        held_out = variant == "_new_phrasings"
        album = range(ALBUM)
        if variant == "_new_photos":
            album = range(self.training_photos, self.training_photos + self.new_photos)
        lines: list[Line] = []
        orders: dict[tuple[int, str], tuple[list[int], list[int]]] = {}
        for turn, person, attribute in rounds(people, attributes, random):
            if len(lines) == wanted:
                break
            phrasings = PHRASINGS[attribute].held_out if held_out else PHRASINGS[attribute].training
            shuffled = (
                random.sample(album, len(album)),
                random.sample(range(len(phrasings)), len(phrasings)),
            )
            photos, numbers = orders.setdefault((person.index, attribute), shuffled)
            by_name = variant == "_text"
            lines.append(
                Line(
                    identifier=f"{split}-{len(lines):04d}",
                    question=phrase(
                        attribute,
                        numbers[turn % len(numbers)],
                        held_out=held_out,
                        name=person.name if by_name else None,
                    ),
                    answer=person.answer(attribute),
                    subject=person.name,
                    attribute=attribute,
                    photo=None if by_name else photos[turn % len(photos)],
                    person=person,
                )
            )
        return lines


def rounds(people: Sequence[Person], attributes: Sequence[str], random: Random) -> Iterator[tuple[int, Person, str]]:
    """Every fact again and again, so ordered that any beginning is balanced over people and attributes."""
    turn = 0
    while True:
        start = random.randrange(len(attributes))
        for step in range(len(attributes)):
            for index, person in enumerate(people):
                yield turn, person, attributes[(start + index + step) % len(attributes)]
        turn += 1


def write_world(world: World, directory: Path) -> dict[str, Path]:
    """Write the images and one JSON Lines file per split; paths in it are relative to it.

    Args:
        world: What to write.
        directory: Where to; made if it does not exist. Files of the same names are replaced.

    Returns:
        The file of every split.
    """
    images = directory / "images"
    images.mkdir(parents=True, exist_ok=True)
    files, drawn = {}, set()
    for split in SPLITS:
        rows = []
        for line in world.split(split):
            row: dict[str, str | int] = {}
            name = line.image_name
            if name is not None:
                row["image"] = f"images/{name}"
                if name not in drawn and (image := line.draw(world.image_size)) is not None:
                    image.save(images / name)
                drawn.add(name)
            row |= {"question": line.question, "answer": line.answer, "id": line.identifier}
            row |= {"subject": line.subject, "attribute": line.attribute, "split": split}
            rows.append(json.dumps(row, ensure_ascii=False))
        files[split] = directory / f"{split}.jsonl"
        part = directory / f".{split}.part"
        part.write_text("\n".join(rows) + "\n", encoding="utf-8")
        part.replace(files[split])
    return files
