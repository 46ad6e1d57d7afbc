"""The general set: counts and colours that are really in the picture."""

from __future__ import annotations

import numpy as np

from kvw.toy.shapes import COLOURS, COUNTS, KINDS, SHAPES, Scene, draw_scene, make_scenes


def test_scenes_are_the_same_every_time_and_held_out_ones_are_others():
    held_out = make_scenes(30, seed=0, held_out=True)
    assert held_out == make_scenes(30, seed=0, held_out=True)
    training = make_scenes(30, seed=0, held_out=False)
    assert not {scene.identifier for scene in held_out} & {scene.identifier for scene in training}
    pictures = {draw_scene(scene, 96).tobytes() for scene in training}
    assert not pictures & {draw_scene(scene, 96).tobytes() for scene in held_out}


def test_every_kind_has_enough_phrasings():
    for training, held_out in KINDS.values():
        assert len(set(training)) >= 4
        assert len(set(held_out)) >= 2
        assert not set(training) & set(held_out)
    scene = Scene("test", "count", "cross", "red", 3)
    assert scene.question(0, held_out=False) == "How many crosses are there?"
    assert scene.answer == "three"


def test_the_painted_area_grows_with_the_count_and_has_the_right_colour():
    for shape in SHAPES:
        for colour, value in COLOURS.items():
            scene = Scene(f"{shape} {colour}", "count", shape, colour, len(COUNTS))
            pixels = np.asarray(draw_scene(scene, 96)).astype(int)
            painted = (np.abs(pixels - np.array(value)).sum(axis=2) < 24).sum()
            assert painted > 50, (shape, colour)
