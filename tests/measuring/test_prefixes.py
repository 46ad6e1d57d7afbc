"""Several questions about one image: the same numbers, with the image run once."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from kvw.data import Example, answer_batch, prepare
from kvw.edits import GateEdit
from kvw.measuring.engine import measure
from kvw.measuring.examples import measure_examples
from kvw.measuring.prefixes import bundle, shares_prefixes
from kvw.models.finding import find_value_matrices

EVERY_LAYER = (0, 3)


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Three images, asked about 5, 2 and 1 times, in mixed order; two questions without an image."""
    folder = tmp_path_factory.mktemp("pictures")
    asked = []
    for index, times in enumerate((5, 2, 1)):
        path = folder / f"{index}.png"
        Image.new("RGB", (40, 30 + index), (60 * index, 200, 90)).save(path)
        asked += [
            ("Who" + " is" * turn + " this?", f"Person {index}{turn}" * (turn + 1), (path,)) for turn in range(times)
        ]
    asked += [("Who?", "Nobody", ()), ("Who is it?", "Somebody", ())]
    order = torch.randperm(len(asked), generator=torch.Generator().manual_seed(0)).tolist()
    return [Example(*asked[place], identifier=str(place)) for place in order]


def assert_same(found, expected):
    assert found.counts == expected.counts
    for key in expected.sums:
        torch.testing.assert_close(found.sums[key], expected.sums[key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("budget", [1, 150, 400, 10_000])
def test_sharing_changes_no_number(llava, llava_processor, questions, budget):
    assert shares_prefixes(llava)
    prepared = prepare(questions, llava_processor)
    single = measure(llava, [answer_batch([item], llava_processor) for item in prepared], layers=EVERY_LAYER)
    assert_same(
        measure_examples(llava, llava_processor, prepared, layers=EVERY_LAYER, budget=budget).statistics, single
    )


def test_sharing_under_an_attached_edit(llava, llava_processor, questions):
    prepared = prepare(questions, llava_processor)
    with GateEdit({m.key: torch.full((m.width,), -0.7) for m in find_value_matrices(llava)}).attach(llava):
        single = measure(llava, [answer_batch([item], llava_processor) for item in prepared], layers=EVERY_LAYER)
        assert_same(measure_examples(llava, llava_processor, prepared, layers=EVERY_LAYER).statistics, single)


def test_an_image_runs_once_however_often_it_is_asked_about(llava, llava_processor, questions):
    images = []
    llava.model.vision_tower.register_forward_pre_hook(
        lambda _, inputs, options: images.append(len(options.get("pixel_values", inputs[0] if inputs else None))),
        with_kwargs=True,
    )
    measure_examples(llava, llava_processor, prepare(questions, llava_processor))
    assert sum(images) == 3


def test_all_positions_are_measured_without_sharing(llava, llava_processor, questions):
    prepared = prepare(questions, llava_processor)
    batches = [answer_batch([item], llava_processor) for item in prepared]
    single = measure(llava, batches, layers=EVERY_LAYER, positions="all")
    found = measure_examples(llava, llava_processor, prepared, layers=EVERY_LAYER, positions="all")
    assert_same(found.statistics, single)


def test_other_families_do_not_share(qwen2_vl):
    assert not shares_prefixes(qwen2_vl)


def test_bundles_hold_every_example_once_and_one_image_each(llava_processor, questions):
    pictured = [item for item in prepare(questions, llava_processor) if item.image_count]
    for budget in (1, 120, 10_000):
        bundles = bundle(pictured, share=True, budget=budget)
        assert sorted(item.example.identifier for alike in bundles for item in alike) == sorted(
            item.example.identifier for item in pictured
        )
        for alike in bundles:
            assert len({item.example.images for item in alike}) == 1
            assert len(alike) == 1 or sum(item.length for item in alike) <= budget
    assert all(len(alike) == 1 for alike in bundle(pictured, share=False, budget=10_000))
