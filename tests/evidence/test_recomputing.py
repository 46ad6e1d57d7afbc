"""What an edit makes of an original is worked out to the byte, and rounding is told from a change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.checkpoints import gate_edit, low_rank_edit, sharded

from kvw.evidence.recomputing import recompute
from kvw.models.headers import read_header
from kvw.models.weight_files import INDEX
from kvw.progress import SILENT
from kvw.runs.apply import apply

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return sharded(tmp_path_factory.mktemp("model") / "model", shards=2, hidden=64, width=96, layers=2)


@pytest.fixture(scope="module", params=[gate_edit, low_rank_edit])
def edit(request, original):
    return request.param(original, 0, 1)


@pytest.fixture(scope="module")
def written(edit, original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "edited"
    apply(edit, original, folder, SILENT)
    return folder


@pytest.fixture
def model(written, tmp_path):
    """A copy of the written model, free to be changed."""
    return Path(shutil.copytree(written, tmp_path / "edited"))


def places(model, edited):
    """Files and first bytes of tensors that an edit changes, or leaves."""
    found = []
    for path in sorted(model.glob("*.safetensors")):
        for name, tensor in read_header(path).items():
            if (("down_proj" in name) and "language" in name) == edited:
                found.append((path, tensor.begin))
    return found


def flip(path, place, bits=1):
    content = bytearray(path.read_bytes())
    content[place] ^= bits
    path.write_bytes(content)


def test_a_model_that_was_written_is_what_comes_out(edit, original, model):
    found = recompute(edit, original, model)
    assert (found.wrong, found.rounded, found.matrices) == ([], [], 2)


def test_the_original_and_another_edit_are_not_it(edit, original, model):
    assert any("is another between" in said for said in recompute(edit, original, original.folder).wrong)
    other = type(edit) is type(gate_edit(original, 0)) and gate_edit(original, 0, 1, seed=5)
    other = other or low_rank_edit(original, 0, 1, seed=5)
    assert any("is another between" in said for said in recompute(other, original, model).wrong)


def test_the_last_bit_of_an_edited_weight_is_rounding_and_of_another_a_change(edit, original, model):
    (path, place), *_ = places(model, edited=True)
    flip(path, place)  # the lowest byte of a bfloat16
    found = recompute(edit, original, model)
    assert (found.wrong, len(found.rounded)) == ([], 1)
    flip(path, place + 1, 0x40)  # its exponent
    assert recompute(edit, original, model).wrong

    path, place = places(model, edited=False)[0]
    flip(path, place)
    assert recompute(edit, original, model).wrong


def test_every_other_file_counts(edit, original, model):
    def wrong():
        return recompute(edit, original, model).wrong

    tokenizer = model / "tokenizer.json"
    before = tokenizer.read_bytes()
    tokenizer.write_bytes(before + b" ")
    assert wrong() == ["tokenizer.json is another"]
    tokenizer.unlink()
    assert wrong() == ["tokenizer.json is missing"]
    tokenizer.write_bytes(before)
    (model / "modeling_x.py").write_text("")
    assert wrong() == ["modeling_x.py is not part of it"]
    (model / "modeling_x.py").unlink()
    index = json.loads((model / INDEX).read_text())
    (model / INDEX).write_text(json.dumps(index | {"metadata": {"x": 1}}))
    assert wrong() == [f"{INDEX} is another"]
    (model / INDEX).write_bytes((original.folder / INDEX).read_bytes())
    shard = min(model.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes() + b"\0")
    assert wrong() == [f"{shard.name} has another size"]
    shard.unlink()
    assert wrong() == [f"{shard.name} is missing"]
