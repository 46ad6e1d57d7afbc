"""Which files are the weights: the same as for transformers, and never a pickle."""

from __future__ import annotations

import itertools
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText
from transformers.modeling_utils import _get_resolved_checkpoint_files

from kvw.errors import UserError
from kvw.models.loading import find_checkpoint, load_model
from kvw.models.weight_files import INDEX, SINGLE, find_weights, weight_files

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def taken_by_transformers(folder):
    config = json.loads((folder / "config.json").read_text())
    files, _ = _get_resolved_checkpoint_files(
        str(folder),
        variant=None,
        gguf_file=None,
        use_safetensors=True,
        user_agent={},
        is_remote_code=False,
        transformers_explicit_filename=config.get("transformers_weights"),
    )
    return files


def copied(saved, tmp_path):
    shutil.copytree(saved["llava"], tmp_path / "model")
    return tmp_path / "model"


def index_of(*names, **entries):
    return {
        "metadata": {},
        "weight_map": {**{f"tensor.{number}": name for number, name in enumerate(names)}, **entries},
    }


def write(folder, name, value):
    save_file({f"of.{name}": torch.full((2,), float(value))}, folder / name, {"format": "pt"})


def make(folder, *, single, shards, index, variant, pickle, named):
    (folder / "config.json").write_text(json.dumps({"transformers_weights": named} if named else {}))
    if single:
        write(folder, SINGLE, 0)
    for number, name in enumerate(shards):
        write(folder, name, number)
    if index is not None:
        (folder / INDEX).write_text(json.dumps(index))
    if variant:
        write(folder, "model.fp16.safetensors", 7)
        (folder / "model.safetensors.index.fp16.json").write_text(json.dumps(index_of("model.fp16.safetensors")))
    if pickle:
        torch.save({"a": torch.ones(1)}, folder / "pytorch_model.bin")
    if named:
        write(folder, "own.safetensors", 9)
        (folder / "own.safetensors.index.json").write_text(json.dumps(index_of("own.safetensors")))


INDICES = {
    "none": None,
    "right": index_of(*SHARDS),
    "in another order": index_of(*reversed(SHARDS)),
    "with a stale entry": index_of(*SHARDS, ghost=SHARDS[1]),
    "of one shard": index_of(SHARDS[1]),
    "of the single file": index_of(SINGLE),
}
NAMED = (None, "own.safetensors", "own.safetensors.index.json", "absent.safetensors")


@pytest.mark.thorough
@pytest.mark.parametrize("index", INDICES)
def test_the_files_are_those_that_transformers_takes(tmp_path, index):
    cases = itertools.product((True, False), ((), SHARDS[:1], SHARDS), (True, False), (True, False), NAMED)
    agreed = 0
    for number, (single, shards, variant, pickle, named) in enumerate(cases):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(
            folder,
            single=single,
            shards=shards,
            index=INDICES[index],
            variant=variant,
            pickle=pickle,
            named=named,
        )
        try:
            expected = taken_by_transformers(folder)
        except (OSError, ValueError):
            expected = []
        if expected and all((folder / name).is_file() for name in expected):
            assert [str(path) for path in weight_files(folder)] == expected
            agreed += 1
        else:
            with pytest.raises(UserError, match="lacks weight files"):
                weight_files(folder)
    assert agreed >= 48  # every folder with a single file, and those whose configuration names one


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "model.safetensors.index.fp16.json"])
def test_a_named_variant_alone_is_told_by_its_name(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=rf"no model\.safetensors[\s\S]*{name} is a named variant"):
        weight_files(tmp_path)


@pytest.fixture
def no_pickle(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("torch.load was reached")

    monkeypatch.setattr(torch, "load", refuse)


REFUSED = [
    "weights.bin",
    "pytorch_model.bin",
    "../other/model.safetensors",
    "sub/model.safetensors",
    "{folder}/model.safetensors",
    "{folder}/pytorch_model.bin",
    "sub\\model.safetensors",
    "model.safetensors\n",
    "model.safetensors\x00",
    "\ud800.safetensors",
    "model.safetensors.bin",
    "x" * 300 + ".safetensors",
    "",
    ".",
    1,
    None,
    ["model.safetensors"],
    True,
]


@pytest.mark.parametrize("where", ["index", "configuration"])
@pytest.mark.parametrize("name", REFUSED, ids=lambda name: repr(name)[:30])
def test_only_plain_safetensors_names_are_followed(saved, tmp_path, no_pickle, name, where):
    folder = copied(saved, tmp_path)
    name = name.format(folder=folder) if isinstance(name, str) else name
    torch.save(load_file(folder / SINGLE), folder / "pytorch_model.bin")
    for place in ("weights.bin", "model.safetensors.bin"):
        (folder / place).write_bytes((folder / "pytorch_model.bin").read_bytes())
    if where == "index":
        (folder / SINGLE).rename(folder / SHARDS[0])
        (folder / INDEX).write_text(json.dumps(index_of(SHARDS[0], other=name)))
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": name}))
        if name is None:  # the same as no entry
            assert weight_files(folder) == [folder / SINGLE]
            return
    for act in (lambda: weight_files(folder), lambda: load_model(find_checkpoint(str(folder)))):
        with pytest.raises(UserError, match="names a file of weights that kvw does not read") as caught:
            act()
        assert "\n" not in caught.value.found
        assert len(caught.value.found) < 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{not json",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"7",
        b"null",
        b"{}",
        b'{"metadata": {}}',
        b'{"metadata": [], "weight_map": {"a": "model.safetensors"}}',
        b'{"metadata": {}, "weight_map": ["model.safetensors"]}',
        b'{"metadata": {}, "weight_map": "model.safetensors"}',
        b'{"metadata": {}, "weight_map": {}}',
        b'{"metadata": {}, "weight_map": {"a": ' + b"1" * 5000 + b"}}",
    ],
    ids=lambda content: content[:40].decode("utf-8", "replace"),
)
def test_an_index_that_is_none_is_one_message(saved, tmp_path, no_pickle, content):
    folder = copied(saved, tmp_path)
    (folder / SINGLE).rename(folder / SHARDS[0])
    (folder / INDEX).write_bytes(content)
    for act in (lambda: weight_files(folder), lambda: load_model(find_checkpoint(str(folder)))):
        with pytest.raises(UserError) as caught:
            act()
        assert INDEX in caught.value.what


def test_a_distributed_checkpoint_is_refused(saved, tmp_path):
    folder = copied(saved, tmp_path)
    (folder / SINGLE).rename(folder / "shard-00001-model-00001-of-00001.safetensors")
    with pytest.raises(UserError, match="is a distributed checkpoint"):
        weight_files(folder)


def test_a_named_file_is_what_is_loaded_and_located(saved, tmp_path):
    folder = copied(saved, tmp_path)
    weights = load_file(folder / SINGLE)
    save_file({name: value * 0.5 for name, value in weights.items()}, folder / "own.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "own.safetensors"}))
    assert weight_files(folder) == [folder / "own.safetensors"]
    loaded, plain = load_model(find_checkpoint(str(folder))), AutoModelForImageTextToText.from_pretrained(folder)
    for (name, value), (_, expected) in zip(loaded.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.equal(value, expected), name


def test_links_to_weights_are_followed(saved, tmp_path):
    folder = copied(saved, tmp_path)
    (folder / SINGLE).rename(tmp_path / "elsewhere.safetensors")
    (folder / SINGLE).symlink_to(tmp_path / "elsewhere.safetensors")
    assert weight_files(folder) == [folder / SINGLE] == [type(folder)(name) for name in taken_by_transformers(folder)]


def test_the_right_index_names_what_the_files_hold(tmp_path):
    save_file({"a": torch.ones(2), "b": torch.ones(3)}, tmp_path / SHARDS[0])
    save_file({"c": torch.ones(4)}, tmp_path / SHARDS[1])
    wrong = {"a": SHARDS[1], "b": SHARDS[0], "ghost": SHARDS[1]}
    content = {"metadata": {"total_size": 1, "kept": "x"}, "weight_map": wrong}
    (tmp_path / INDEX).write_text(json.dumps(content))
    weights = find_weights(tmp_path)
    held = {"a": SHARDS[0], "b": SHARDS[0], "c": SHARDS[1]}
    assert weights.held() == held
    assert weights.corrected_index() == {"metadata": {"total_size": 36, "kept": "x"}, "weight_map": held}
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": held}))
    assert weights.corrected_index() is None


def test_an_index_without_metadata_is_not_loaded_and_is_corrected(saved, tmp_path):
    folder = copied(saved, tmp_path)
    weights = load_file(folder / SINGLE)
    (folder / SINGLE).rename(folder / SHARDS[0])
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(weights, SHARDS[0])}))
    with pytest.raises(UserError, match="is no index of weights"):
        load_model(find_checkpoint(str(folder)))
    corrected = find_weights(folder).corrected_index()
    assert corrected == {"metadata": {}, "weight_map": dict.fromkeys(weights, SHARDS[0])}
