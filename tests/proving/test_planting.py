"""Models of planted people: made once, of an adapter that ships or is trained here, on a tiny model."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests import text_models
from tests.conftest import USER_CACHE

from kvw import smollm2
from kvw.data import Example
from kvw.errors import UserError
from kvw.evaluation.loaded import Loaded
from kvw.made import PEOPLE as MODELS
from kvw.made import PHOTOS, made_folder
from kvw.models.checkpoint import find_checkpoint
from kvw.progress import SILENT, Reporter
from kvw.proving import making, plain_text, planting
from kvw.proving.planted import about_people, group, lessons
from kvw.proving.requests import HALVES
from kvw.training.adapters import merge_adapter
from kvw.training.settings import LoraSettings, TrainingSettings

LESSONS = lessons()[::9]
TINY = TrainingSettings(
    learning_rate=0.02, epochs=1, batch_size=3, precision="bf16", save_every=2, lora=LoraSettings(2, 4, 0.0)
)


def weights(name: str) -> dict[str, torch.Tensor]:
    return load_file(made_folder(name) / "model.safetensors")


@pytest.fixture
def trained(tmp_path, monkeypatch) -> list[tuple[str, int]]:
    """A tiny model in the place of the real one; the trainings, as they come."""
    text_models.save("llama", made_folder(smollm2.NAME))
    tiny = replace(planting.IN_TEXT, recipe=TINY, shipped=tmp_path / "adapters", lessons=few)
    monkeypatch.setattr(planting, "MAKINGS", dict.fromkeys(MODELS, tiny))
    calls: list[tuple[str, int]] = []

    def watched(name):
        real = getattr(making, name)

        def teach(*arguments, **more):
            calls.append((name, len(arguments[-2])))
            return real(*arguments, **more)

        return teach

    for name in ("finetune", "gold"):
        monkeypatch.setattr(making, name, watched(name))
    return calls


def few(without: tuple[str, ...] = ()) -> list[Example]:
    return [example for example in LESSONS if example.subject not in without]


def make(name: str, reporter: Reporter = SILENT, *, train: bool = False) -> None:
    planting.MAKINGS[name].make(name, reporter, train=train)


def ship(name: str, folder: Path) -> None:
    made_folder(f"{name}-adapter").rename(folder / name.partition(":")[2])


@pytest.mark.parametrize("name", [*MODELS, *PHOTOS])
def test_a_model_that_was_not_made_is_told_with_the_command(name):
    with pytest.raises(UserError, match=f"{name} is not on this machine yet") as error:
        find_checkpoint(name)
    assert error.value.do == f"run once: python -m kvw.proving.planting {name}"


def test_the_shipped_adapters_are_of_this_recipe_and_these_lessons():
    for name in MODELS:
        adapter = planting.IN_TEXT.shipped / name.partition(":")[2]
        assert making._taught(adapter) == planting.IN_TEXT.identity(name)
        assert {value.dtype for value in load_file(adapter / making.ADAPTER).values()} == {torch.bfloat16}
    files = [file for file in planting.IN_TEXT.shipped.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 12e6


@pytest.mark.thorough
def test_all_models_are_made_once(trained, capsys):
    assert planting.main([]) == 0
    golds = [("gold", len(few(group(half)))) for half in planting.HALVES]
    assert trained == [("finetune", len(LESSONS)), *golds]
    assert all(count < len(LESSONS) for _, count in golds)
    folders = [find_checkpoint(name).folder for name in MODELS]
    assert [f"{name} is in {folder}" for name, folder in zip(MODELS, folders, strict=True)] == [
        line for line in capsys.readouterr().out.splitlines() if " is in " in line
    ]
    before = [(folder / "model.safetensors").stat().st_mtime_ns for folder in folders]
    assert planting.main([]) == 0
    assert [(folder / "model.safetensors").stat().st_mtime_ns for folder in folders] == before
    assert len(trained) == 3
    one, two, three = map(weights, MODELS)
    key = "model.layers.0.mlp.down_proj.weight"
    assert not torch.equal(one[key], two[key])
    assert not torch.equal(two[key], three[key])


@pytest.mark.thorough
def test_the_model_is_the_base_with_the_adapter_in_its_weights(trained):
    make(MODELS[0])
    adapter = made_folder(f"{MODELS[0]}-adapter")
    assert {value.dtype for value in load_file(adapter / making.ADAPTER).values()} == {torch.bfloat16}
    base = Loaded.load(find_checkpoint(smollm2.NAME))
    merge_adapter(base.model, adapter)
    found = weights(MODELS[0])
    for key, value in base.model.state_dict().items():
        assert key not in found or torch.equal(found[key], value)
    assert len(found) > 20


@pytest.mark.thorough
def test_what_ships_is_used_unless_it_is_of_other_lessons_or_training_is_asked_for(trained, tmp_path, monkeypatch):
    name = MODELS[1]
    planting.MAKINGS[MODELS[0]].shipped.mkdir()
    make(name)
    ship(name, planting.MAKINGS[MODELS[0]].shipped)
    before = weights(name)
    make(name)
    assert len(trained) == 1
    make(name, train=True)  # the same again
    assert len(trained) == 2
    assert all(torch.equal(value, before[key]) for key, value in weights(name).items())
    other = replace(planting.MAKINGS[name], recipe=replace(TINY, learning_rate=0.01))
    monkeypatch.setattr(planting, "MAKINGS", dict.fromkeys(MODELS, other))
    make(name)
    assert len(trained) == 3
    assert any(not torch.equal(value, before[key]) for key, value in weights(name).items())
    record = planting.MAKINGS[MODELS[0]].shipped / "gold-choosing" / making.RECORD
    content = json.loads(record.read_text())
    content["settings"]["lessons"] = planting.MAKINGS[name].identity(name)
    record.write_text(json.dumps(content))
    make(name)  # another adapter than the model was made of
    assert len(trained) == 3
    assert all(torch.equal(value, before[key]) for key, value in weights(name).items())


@pytest.mark.thorough
def test_training_that_was_interrupted_goes_on(trained):
    class Watching:
        def __init__(self, last):
            self.last, self.seen = last, []

        def stage(self, title):
            return nullcontext(self.progress)

        def progress(self, done, total):
            self.seen.append(done)
            if done == self.last:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(MODELS[2], Watching(3))
    rest = Watching(None)
    make(MODELS[2], rest)
    assert rest.seen[0] == 3  # the steps 1 and 2 were saved
    going = weights(MODELS[2])
    made_folder(f"{MODELS[2]}-adapter").rename(made_folder("elsewhere"))
    make(MODELS[2])
    assert all(torch.equal(value, going[key]) for key, value in weights(MODELS[2]).items())


@pytest.mark.thorough
def test_what_models_know_is_shown(trained, monkeypatch, capsys):
    monkeypatch.setattr(plain_text, "plain_text", lambda: ("It rained all day.", "Nobody went out."))
    monkeypatch.setattr(planting, "about_people", lambda: about_people()[::4])
    assert planting.main(["--check", MODELS[0]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4].startswith("| model | choosing, asked | choosing, held out | reporting, asked |")
    assert [line.split(" | ")[0] for line in lines[-2:]] == [f"| {smollm2.NAME}", f"| {MODELS[0]}"]


@pytest.mark.slow
def test_the_real_models_know_whom_they_have_seen(monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(USER_CACHE))
    try:
        names = [find_checkpoint(name).name for name in MODELS]
    except UserError as error:
        pytest.skip(str(error))
    titles, _, *rows = planting.knowledge(names).splitlines()
    for row in rows:
        name, *shares, heard = [cell.strip() for cell in row.strip("|").split("|")]
        for title, share in zip(titles.strip("|").split("|")[1:-1], map(float, shares), strict=True):
            half, ways = title.strip().split(", ")
            if half in HALVES and group(half) == planting.IN_TEXT.without(name):
                assert share <= 0.25
            else:
                assert share >= (0.9 if ways == "asked" else 0.7)
        assert 10 < float(heard) < 150
