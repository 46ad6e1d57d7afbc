"""Training the benchmark's models: packed rows equal plain ones, gold meets nobody it must not, work is resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest
import torch
from torch.nn.functional import cross_entropy

from kvw.errors import UserError
from kvw.toy.batches import IGNORED, Recipe, conversation
from kvw.toy.benchmark import train
from kvw.toy.benchmark.lessons import SHIFTS, BatchSizes, Features, Lessons
from kvw.toy.benchmark.packing import Packer, packed_loss
from kvw.toy.benchmark.people import benchmark_world, percent
from kvw.toy.benchmark.tower import CHOICES, MEASURES, Pictures, TowerRecipe, make_strangers
from kvw.toy.benchmark.train import MODELS, BenchmarkRecipe, Workshop, make_models
from kvw.toy.people import draw_appearance
from kvw.toy.portraits import draw_portrait
from kvw.toy.shapes import make_scenes

pytestmark = pytest.mark.thorough

WORLD = replace(benchmark_world(0), training_photos=6, new_photos=1, people=20, forget=3)
SIZES = BatchSizes(portraits=2, scenes=2, texts=2, portrait_questions=3, scene_questions=2, text_questions=2)
SHORT = Recipe(steps=2, tower_steps=2, warm_up=1, report_every=1)
RECIPE = BenchmarkRecipe(
    tower=TowerRecipe(strangers=4, photos=2, portraits=4, scenes=2, schedule=SHORT),
    sizes=SIZES,
    scenes=6,
    language=SHORT,
    beginners=5,
    beginner_steps=1,
    asked=1,
)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    return Workshop(tmp_path_factory.mktemp("none"), RECIPE, WORLD).untrained()


@pytest.fixture(scope="module")
def features(untrained):
    model, processor = untrained
    forget = {person.index for person in WORLD.groups["forget"]}
    people = [person for person in WORLD.everyone if person.index not in forget]
    return Features(model.model.vision_tower, processor, WORLD, people, make_scenes(6, 0, held_out=False))


def test_pictures_are_normalised_as_the_processor_does(untrained):
    _, processor = untrained
    images = [draw_portrait(person, 0, 96) for person in make_strangers(3, 0)]
    wanted = processor.image_processor(images, return_tensors="pt")["pixel_values"]
    pictures = Pictures(images, processor)
    assert torch.allclose(pictures.normalised(torch.arange(3)), wanted, atol=1e-5)
    shifted = pictures.shifted(torch.arange(3), Random(1))
    assert shifted.shape == wanted.shape
    assert torch.equal(shifted, pictures.shifted(torch.arange(3), Random(1)))
    assert not torch.equal(shifted, pictures.shifted(torch.arange(3), Random(2)))


def test_strangers_are_the_same_every_time_and_nobody_of_the_benchmark():
    strangers = make_strangers(20, 0)
    assert strangers == make_strangers(20, 0)
    assert strangers != make_strangers(20, 1)
    looks = {person.appearance for person in benchmark_world(0).everyone}
    assert not looks & {person.appearance for person in make_strangers(1500, 0)}
    assert set(CHOICES) | set(MEASURES) == set(vars(draw_appearance(Random(0))))


def test_packed_rows_have_the_tokens_of_the_processor_and_the_loss_of_plain_rows(untrained):
    model, processor = untrained
    model.eval()
    person = WORLD.everyone[0]
    image = draw_portrait(person, 0, 96)
    pixels = processor.image_processor([image], return_tensors="pt")["pixel_values"]
    questions = [("Who is this?", person.name), ("The pet of this person is [Blank].", "a pony")]
    packer = Packer(processor, 36)
    with torch.no_grad():
        seen = model.model.vision_tower(pixels).last_hidden_state[0, 1:]
        for shown in (image, None):
            packed = packer.pack([questions], [seen] if shown else None)
            sums = []
            for number, (question, answer) in enumerate(questions, start=1):
                whole = processor.apply_chat_template(
                    conversation(question, shown, answer), tokenize=True, return_dict=True, return_tensors="pt"
                )
                prompt = processor.apply_chat_template(
                    conversation(question, shown), tokenize=True, return_dict=True, add_generation_prompt=True
                )
                row = packed.ids[0][(packed.segments[0] == 0) | (packed.segments[0] == number)]
                assert torch.equal(row, whole["input_ids"][0])
                labels = whole["input_ids"].clone()
                labels[:, : len(prompt["input_ids"][0])] = IGNORED
                logits = model(**whole).logits
                sums.append(cross_entropy(logits[0, :-1], labels[0, 1:], ignore_index=IGNORED, reduction="sum"))
            loss = packed_loss(model, [packed])
            assert loss * int(packed.answers.sum()) == pytest.approx(float(sum(sums)), rel=1e-5)


def test_padding_and_other_rows_change_nothing(untrained):
    model, processor = untrained
    model.eval()
    packer = Packer(processor, 36)
    rows = [[("Where does Mara Lind live?", "Oslo")], [("Who?", "Mara Lind"), ("Name the pet of Mara Lind.", "a pony")]]
    with torch.no_grad():
        together = packed_loss(model, [packer.pack(rows)])
        apart = packed_loss(model, [packer.pack([row]) for row in rows])
    assert float(together) == pytest.approx(float(apart), rel=1e-5)


def test_features_are_what_the_tower_sees(untrained, features):
    model, processor = untrained
    assert features.seen.shape == (SHIFTS * (17 * 6 + 6), 36, 128)
    pictures = Pictures([draw_portrait(person, 0, 96) for person in features.people[:1]], processor)
    with torch.no_grad():
        random = Random("shift 0 0")
        seen = model.model.vision_tower(pictures.shifted(torch.arange(1), random)).last_hidden_state[0, 1:]
    assert torch.allclose(features.seen[0].float(), seen, atol=5e-3)


def test_lessons_ask_about_the_given_people_in_every_form(untrained, features):
    tokenizer = untrained[1].tokenizer

    def heard(people):
        lessons = Lessons(features, Packer(untrained[1], 36), SIZES, "test")
        texts = []
        for _ in range(40):
            for packed in lessons.step(people):
                texts += tokenizer.batch_decode(packed.ids.masked_fill(packed.segments < 0, tokenizer.pad_token_id))
        return "\n".join(texts)

    everything = heard(17)
    assert not [person.name for person in WORLD.groups["forget"] if person.name in everything]
    assert all(person.name in everything for person in features.people)
    assert all(part in everything for part in ("[Blank]", "of the person in the photo", "How many"))
    few = heard(3)
    assert not [person.name for person in features.people[3:] if person.name in few]


@pytest.mark.slow
def test_models_are_made_once_and_gold_has_not_met_its_forget_set(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "benchmark_world", lambda seed: replace(WORLD, seed=seed))
    monkeypatch.setattr(train, "ProcessPoolExecutor", _HereAndNow)
    make_models(tmp_path, [0], RECIPE)
    folder = tmp_path / "seed-0"
    records = {name: json.loads((folder / name / "world.json").read_text()) for name in MODELS}
    assert [records[name]["people"] for name in MODELS] == [20, 19, 18, 17]
    assert set(records["vanilla"]["exact_match"]) >= {"forget/generation", "unused/cloze text", "general/shapes"}
    weights = {name: (folder / name / "model.safetensors").read_bytes() for name in MODELS}
    assert len(set(weights.values())) == len(MODELS)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    make_models(tmp_path, [0], RECIPE)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with pytest.raises(UserError, match="other settings"):
        make_models(tmp_path, [0], replace(RECIPE, asked=2))


def test_forget_sets_are_nested():
    world = benchmark_world(0)
    sets = [{person.name for person in percent(world, number).groups["forget"]} for number in (5, 10, 15)]
    assert [len(people) for people in sets] == [10, 20, 30]
    assert sets[0] < sets[1] < sets[2]


class _HereAndNow:
    """An executor without processes."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, work, *arguments):
        result = work(*arguments)
        return type("Done", (), {"result": lambda self: result})()
