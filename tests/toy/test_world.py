"""The splits: what they promise, and that nothing leaks between them."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from kvw.errors import UserError
from kvw.toy import SPLITS, World, write_world
from kvw.toy.people import ATTRIBUTES, NAME
from kvw.toy.questions import PHRASINGS, phrase
from kvw.toy.world import ALBUM

WORLD = World()


def test_the_world_has_the_promised_size():
    assert len(WORLD.everyone) == 40
    assert {group: len(people) for group, people in WORLD.groups.items()} == {
        "forget": 4,
        "retain": 18,
        "unused": 18,
    }
    assert len(ATTRIBUTES) >= 7
    assert ALBUM >= 6
    for split in SPLITS:
        assert 100 <= len(WORLD.split(split)) <= 600


def test_groups_and_splits_are_the_same_every_time_and_depend_on_the_seed():
    other = World()
    for split in SPLITS:
        assert other.split(split) == WORLD.split(split)
    assert World(seed=1).groups != WORLD.groups


def test_nobody_is_in_two_groups_and_every_split_keeps_to_its_group():
    names = {group: {person.name for person in people} for group, people in WORLD.groups.items()}
    assert len(set.union(*names.values())) == WORLD.people
    for split in SPLITS:
        if split == "general":
            continue
        subjects = {line.subject for line in WORLD.split(split)}
        assert subjects == names[split.split("_")[0]], split


def test_gold_is_not_taught_the_forget_people():
    forget = {person.name for person in WORLD.groups["forget"]}
    taught = {person.name for person in WORLD.training_people(without_forget=True)}
    assert not forget & taught
    assert len(taught) == 36
    assert len(WORLD.training_people(without_forget=False)) == 40


def test_forget_covers_every_fact_of_the_forget_people_on_several_photos():
    photos: dict[tuple[str, str], set[int | None]] = {}
    for line in WORLD.split("forget"):
        photos.setdefault((line.subject, line.attribute), set()).add(line.photo)
    assert len(photos) == 4 * (len(ATTRIBUTES) + 1)
    assert min(len(shown) for shown in photos.values()) >= 3


@pytest.mark.parametrize("group", ["forget", "retain", "unused"])
def test_held_out_photos_and_phrasings_are_not_in_training(group):
    trained = {
        phrase(attribute, number) for attribute, listed in PHRASINGS.items() for number in range(len(listed.training))
    }
    assert all(line.photo < ALBUM and line.question in trained for line in WORLD.split(group))
    new_photos = WORLD.split(f"{group}_new_photos")
    assert all(line.photo >= WORLD.training_photos and line.question in trained for line in new_photos)
    assert len({line.photo for line in new_photos}) >= 3
    new_phrasings = WORLD.split(f"{group}_new_phrasings")
    assert all(line.photo < ALBUM and line.question not in trained for line in new_phrasings)
    for line in WORLD.split(f"{group}_text"):
        assert line.photo is None
        assert line.subject in line.question
        assert line.attribute != NAME


def test_splits_are_balanced_over_people_and_attributes():
    for split in SPLITS:
        lines = WORLD.split(split)
        for key in ("attribute", "subject"):
            values = [getattr(line, key) for line in lines]
            counts = [values.count(value) for value in set(values)]
            assert max(counts) - min(counts) <= max(4, len(lines) // 40), (split, key, counts)


@pytest.mark.thorough
def test_written_files_are_valid_and_their_images_exist(tmp_path):
    world = World(people=8, forget=2, seed=3, image_size=32)
    files = write_world(world, tmp_path / "world")
    assert tuple(files) == SPLITS
    identifiers = []
    for split, file in files.items():
        rows = [json.loads(text) for text in file.read_text(encoding="utf-8").splitlines()]
        assert file.name == f"{split}.jsonl"
        assert len(rows) == len(world.split(split))
        for row in rows:
            assert all(row[key] for key in ("question", "answer", "id", "subject", "attribute"))
            assert ("image" in row) == (not split.endswith("_text"))
            if "image" in row:
                assert (file.parent / row["image"]).is_file()
        identifiers += [row["id"] for row in rows]
    assert len(identifiers) == len(set(identifiers))
    with Image.open(tmp_path / "world" / "images" / "held-out-3-0.png") as image:
        assert image.size == (32, 32)


def test_impossible_worlds_and_unknown_splits_are_refused():
    with pytest.raises(UserError, match="someone to forget"):
        World(people=4, forget=4)
    with pytest.raises(UserError, match="more photos"):
        World(training_photos=2)
    with pytest.raises(UserError, match="no such split"):
        WORLD.split("train")


def test_a_larger_world_is_the_same_code():
    world = World(people=200, forget=20, seed=5)
    assert len(world.split("forget")) >= 20 * (len(ATTRIBUTES) + 1)
    assert {line.subject for line in world.split("unused")} == {person.name for person in world.groups["unused"]}
