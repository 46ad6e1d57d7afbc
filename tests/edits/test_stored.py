"""The edit file: the same bytes for the same edit, and no byte, tensor or line of it changed without notice."""

from __future__ import annotations

import hashlib
import json
import os
import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tests.edit_files import write, write_raw
from tests.several_processes import run_alone

import kvw
from kvw.edits import Condition, ConditionalGateEdit, Directions, EditMetadata, RoundedGateEdit, Steer, SteeringEdit
from kvw.edits.edit import read_edit, write_edit
from kvw.edits.stored import BLANK, ENTRY, FORMAT
from kvw.models.value_matrix import MatrixKey

WIDTH, HIDDEN, RANK = 6, 4, 2


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gate_edit():
    logs = {MatrixKey(layer): -numbers(WIDTH, seed=layer).abs() for layer in range(4)}
    return kvw.GateEdit(logs, EditMetadata(method="kvw", settings={"gamma": 0.5, "alpha": [1, 2]}, base_model="tiny"))


def low_rank_edit():
    patterns = {layer: numbers(WIDTH, RANK, seed=layer) for layer in range(1, 4)}
    return kvw.LowRankEdit(
        {
            MatrixKey(layer, attention=layer == 2): Directions(value, torch.linalg.pinv(value).T, -numbers(RANK).abs())
            for layer, value in patterns.items()
        }
    )


def steering_edit():
    return SteeringEdit({layer: Steer(numbers(HIDDEN, seed=layer), numbers(HIDDEN)) for layer in (1, 2)}, 0.25)


def conditional_edit():
    return ConditionalGateEdit(gate_edit(), Condition(0, numbers(HIDDEN)))


def rounded_edit():
    return RoundedGateEdit({MatrixKey(1, 7): torch.rand(3, WIDTH, generator=torch.Generator()).bfloat16()})


MAKE = [gate_edit, low_rank_edit, steering_edit, conditional_edit, rounded_edit]
everything = pytest.mark.parametrize("make", MAKE)


@pytest.mark.thorough
@everything
def test_every_flipped_byte_is_found(make, tmp_path):
    """Whichever byte it is, and whatever it becomes: the same value with another bit, or a blank for a blank."""
    path, draw = tmp_path / "edit.safetensors", random.Random(0)
    make().save(path)
    content = path.read_bytes()
    kvw.load_edit(path)
    header = 8 + int.from_bytes(content[:8], "little")
    data = range(header, len(content))
    places = {*range(8), *draw.sample(range(8, header), 60), *draw.sample(data, min(50, len(data)))}
    padding = [place for place in range(header) if content[place] == ord(" ")][-1:]
    for place in sorted(places) + padding:
        for wrong in {content[place] ^ 1 << draw.randrange(8), content[place] ^ 255, ord("\t")} - {content[place]}:
            path.write_bytes(content[:place] + bytes([wrong]) + content[place + 1 :])
            with pytest.raises(kvw.UserError):
                kvw.load_edit(path)


@everything
@pytest.mark.parametrize("left", [0, 1, 7, 8, 100, -1])
def test_a_file_that_is_cut_off_is_refused(make, left, tmp_path):
    make().save(tmp_path / "edit.safetensors")
    content = (tmp_path / "edit.safetensors").read_bytes()
    for wrong in (content[:left], content + b"\0"):
        (tmp_path / "edit.safetensors").write_bytes(wrong)
        with pytest.raises(kvw.UserError):
            kvw.load_edit(tmp_path / "edit.safetensors")


@everything
def test_half_of_the_layers_are_not_taken_for_the_edit(make, tmp_path):
    """As somebody would take them out: with the library, and with the header as it was."""
    path = tmp_path / "edit.safetensors"
    make().save(path)
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])["__metadata__"]
    tensors = load_file(path)
    for kept in (len(tensors) // 2, 0):
        save_file(dict(sorted(tensors.items())[:kept]), path, header)
        with pytest.raises(
            kvw.UserError, match=f"only a part of the edit(?s:.*){len(tensors) - kept} of {len(tensors)}"
        ):
            kvw.load_edit(path)
    save_file({**tensors, "layer.9.log_gates": -torch.ones(WIDTH)}, path, header)
    with pytest.raises(kvw.UserError, match="not in its list"):
        kvw.load_edit(path)


def saved_there(folder):
    """Save every edit; returns a hash that is another in every process, unless PYTHONHASHSEED says otherwise."""
    for make in MAKE:
        make().save(folder / make.__name__)
    return hash("edit")


@pytest.mark.thorough
def test_the_same_edit_has_the_same_bytes_in_every_process(tmp_path):
    (tmp_path / "there").mkdir()
    ended = run_alone(saved_there, tmp_path / "there", folder=tmp_path / "logs")
    assert ended.code == 0, ended.errors
    assert ended.result != hash("edit") or "PYTHONHASHSEED" in os.environ
    for make in MAKE:
        make().save(tmp_path / "here")
        kvw.load_edit(tmp_path / "here").save(tmp_path / "again")
        contents = {
            path.read_bytes() for path in [tmp_path / "here", tmp_path / "again", tmp_path / "there" / make.__name__]
        }
        assert len(contents) == 1


def test_the_order_of_settings_and_the_time_are_no_part_of_the_file(tmp_path):
    for name, stated in (("one", {"a": 1, "b": 2}), ("two", {"b": 2, "a": 1})):
        kvw.GateEdit(gate_edit().log_gates, EditMetadata(settings=stated)).save(tmp_path / name)
        os.utime(tmp_path / name, (0, 0))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_tensors_that_are_parts_of_one_are_kept_like_others(tmp_path):
    shared = -numbers(2, WIDTH).abs()
    edit = kvw.GateEdit({MatrixKey(1): shared[0], MatrixKey(2): shared[0], MatrixKey(3): shared.T[:, 1]})
    edit.save(tmp_path / "edit.safetensors")
    assert kvw.load_edit(tmp_path / "edit.safetensors").digest() == edit.digest()


def test_a_digest_is_of_what_an_edit_does():
    edit, other = gate_edit(), kvw.GateEdit(gate_edit().log_gates, EditMetadata(method="scale"))
    assert edit.digest() == other.digest()
    assert edit.digest() != kvw.scale(edit, 0.5).digest() != conditional_edit().digest()


def nothing():
    """Edits that change no model, one of each kind and way."""
    steer, gates = steering_edit().steers[1], gate_edit()
    found = low_rank_edit().directions[MatrixKey(1)]
    zeros, sides = torch.zeros_like(found.patterns), (found.patterns, found.filters)
    return {
        "no gates": kvw.GateEdit({}),
        "gates of 1": kvw.GateEdit({MatrixKey(1): torch.zeros(WIDTH)}),
        "gates that float32 cannot tell from 1": kvw.GateEdit({MatrixKey(1): torch.full((WIDTH,), -1e-9)}),
        "gates at strength 0": kvw.scale(gates, 0),
        "an edit and its inverse": kvw.compose(gates, kvw.invert(gates)),
        "none of the mixture": kvw.mix(gates, 0),
        "directions at strength 0": kvw.scale(low_rank_edit(), 0),
        "no directions": kvw.LowRankEdit({MatrixKey(1): Directions(zeros[:, :0], zeros[:, :0], torch.zeros(0))}),
        "directions with gates of 1": kvw.LowRankEdit({MatrixKey(1): Directions(*sides, zeros[0])}),
        "directions of length 0": kvw.LowRankEdit({MatrixKey(1): Directions(zeros, found.filters, found.log_gates)}),
        "no value matrix": kvw.LowRankEdit({}),
        "steering at strength 0": kvw.scale(steering_edit(), 0),
        "no layer": SteeringEdit({}),
        "a shift of length 0": SteeringEdit({1: Steer(steer.filter, torch.zeros(HIDDEN))}),
        "a filter that reads nothing": SteeringEdit({1: Steer(torch.zeros(HIDDEN), steer.direction)}),
        "conditional gates of 1": ConditionalGateEdit(kvw.scale(gates, 0), Condition(0, numbers(HIDDEN))),
        "a condition that never holds": ConditionalGateEdit(gates, Condition(0, torch.zeros(HIDDEN), 0.5)),
        "rounded gates of 1": RoundedGateEdit({MatrixKey(1): torch.ones(2, WIDTH)}),
    }


@pytest.mark.parametrize("name", nothing())
def test_an_edit_that_does_nothing_is_neither_written_nor_loaded(name, tmp_path):
    edit, path = nothing()[name], tmp_path / "edit.safetensors"
    with pytest.raises(kvw.UserError, match="does nothing"):
        edit.save(path)
    assert not path.exists()
    write_edit(edit, path)
    assert type(read_edit(path)) is type(edit)
    with pytest.raises(kvw.UserError, match=f"{path.name} does nothing"):
        kvw.load_edit(path)


@everything
def test_an_edit_that_does_something_is_loaded(make, tmp_path):
    make().save(tmp_path / "edit.safetensors")
    assert kvw.load_edit(tmp_path / "edit.safetensors").digest() == make().digest()
    always = ConditionalGateEdit(gate_edit(), Condition(0, torch.zeros(HIDDEN), -1.0))
    assert not always.does_nothing


LOGS, MINUS, ROW = -torch.ones(WIDTH), torch.tensor(-1.0, dtype=torch.float64), torch.ones(HIDDEN)


@pytest.mark.parametrize(
    ("kind", "tensors", "reason"),
    [
        ("gates", {"layer.1.log_gates": torch.tensor(-1.0)}, "0 dimensions"),
        ("gates", {"layer.1.log_gates": LOGS[None]}, "2 dimensions"),
        ("gates", {"layer.1.log_gates": LOGS[:0]}, "is empty"),
        ("gates", {"layer.1.log_gates": LOGS.double()}, "torch.float64"),
        ("gates", {"layer.1.log_gates": LOGS.to(torch.complex64)}, "in C64"),
        ("gates", {"layer.1.log_gates": LOGS.to(torch.float8_e4m3fn)}, "in F8_E4M3"),
        ("gates", {"layer.1.log_gates": LOGS.to(torch.int8)}, "in I8"),
        ("gates", {"layer.1.log_gates": -LOGS}, "above 1"),
        ("gates", {"layer.1.log_gates": LOGS * torch.inf}, "not finite"),
        ("gates", {"layer.1.log_gates": LOGS * torch.nan}, "not finite"),
        ("gates", {"layer.1.log_gates": LOGS, "layer.01.log_gates": LOGS}, "layer.01.log_gates"),
        ("gates", {"layer.1.log_gates": LOGS, "layer.1.gates": LOGS}, "layer.1.gates"),
        ("gates", {"layer." + "1" * 5000 + ".log_gates": LOGS}, "digits"),
        ("rounded gates", {"layer.1.steps": torch.tensor(0.5)}, "0 dimensions"),
        ("rounded gates", {"layer.1.steps": torch.zeros(0, WIDTH)}, "is empty"),
        ("rounded gates", {"layer.1.steps": torch.zeros(2, 0)}, "is empty"),
        ("rounded gates", {"layer.1.steps": torch.full((1, WIDTH), 1.5)}, "from 0 to 1"),
        ("rounded gates", {"layer.1.steps": torch.full((1, WIDTH), -0.5)}, "from 0 to 1"),
        ("rounded gates", {"layer.1.steps": torch.full((1, WIDTH), torch.nan)}, "not finite"),
        (
            "low rank",
            low_rank_edit().tensors() | {"strength": MINUS},
            "strength is -1",
        ),
        ("low rank", low_rank_edit().tensors() | {"strength": torch.tensor(1.0)}, "torch.float32"),
        ("low rank", low_rank_edit().tensors() | {"strength": torch.ones(1, dtype=torch.float64)}, "1 dimensions"),
        ("low rank", low_rank_edit().tensors() | {"layer.1.filters": torch.ones(0, RANK)}, "is empty"),
        ("low rank", {"layer.1.patterns": torch.ones(WIDTH, RANK)}, "strength is missing"),
        (
            "steering",
            steering_edit().tensors() | {"strength": MINUS},
            "strength is -1",
        ),
        ("steering", steering_edit().tensors() | {"decoding": torch.tensor(1)}, "torch.int64"),
        ("steering", steering_edit().tensors() | {"layer.1.filter": torch.ones(0)}, "is empty"),
        (
            "steering",
            steering_edit().tensors() | {"layer.1.expert.2.filter": ROW},
            "is missing",
        ),
        ("conditional gates", conditional_edit().tensors() | {"condition.layer": torch.tensor(-3)}, "layer -3"),
        ("conditional gates", conditional_edit().tensors() | {"condition.layer": torch.tensor(0.5)}, "torch.float32"),
        ("conditional gates", conditional_edit().tensors() | {"condition.filter": torch.tensor(1.0)}, "0 dimensions"),
        ("conditional gates", conditional_edit().tensors() | {"condition.colour": torch.ones(1)}, "condition.colour"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(kind, tensors, reason, tmp_path):
    path = write(tmp_path / "edit.safetensors", kind, tensors)
    with pytest.raises(kvw.UserError, match="not an edit file that this version reads") as caught:
        kvw.load_edit(path)
    assert reason in str(caught.value)


@everything
def test_what_could_not_be_read_is_not_written(make, tmp_path):
    edit, path = make(), tmp_path / "edit.safetensors"
    name, value = next((name, value) for name, value in edit.tensors().items() if value.ndim)
    edit.tensors = lambda: {**make().tensors(), name: torch.full_like(value, torch.nan)}
    with pytest.raises(kvw.UserError, match="cannot be kept in a file"):
        edit.save(path)
    assert not path.exists()


def test_negative_strengths_of_inverses_are_marked(tmp_path):
    for edit in (kvw.invert(low_rank_edit()), kvw.invert(steering_edit()), kvw.scale(kvw.invert(steering_edit()), 0.5)):
        edit.save(tmp_path / "edit.safetensors")
        loaded = kvw.load_edit(tmp_path / "edit.safetensors")
        assert loaded.strength < 0
        assert loaded.metadata.amplifies
        assert not kvw.invert(loaded).metadata.amplifies


HEADER = {"digest": BLANK, "format": FORMAT, "kind": "gates", "metadata": "{}", "tensors": ["layer.1.log_gates"]}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (HEADER, ""),
        (HEADER | {"metadata": '{"colour": "red"}'}, "colour"),
        (HEADER | {"format": "kvw edit 99"}, "kvw edit 99"),
        (HEADER | {"kind": "magic"}, "kind 'magic', not one of conditional gates, gates"),
        (HEADER | {"kind": 3}, "something missing"),
        (HEADER | {"tensors": None}, "something missing"),
        ({key: value for key, value in HEADER.items() if key != "metadata"}, "something missing"),
        ({key: value for key, value in HEADER.items() if key != "digest"}, "something missing"),
        (HEADER | {"digest": ""}, "damaged"),
        (HEADER | {"digest": "f" * 64}, "damaged"),
        ("[]", "not an edit file"),
        ("3", "not an edit file"),
        ("no JSON", "not a safetensors file"),
        ("[" * 100_000, "not a safetensors file"),
        ("1" * 5000, "not a safetensors file"),
        (HEADER | {"metadata": "[" * 100_000}, "not an edit file"),
        (HEADER | {"metadata": '{"settings": {"a": ' + "1" * 5000 + "}}"}, "not an edit file"),
        (HEADER | {"metadata": '{"settings": {"a": "\\ud800"}}'}, "not an edit file"),
        (HEADER | {"metadata": '{"parents": [' * 300}, "not an edit file"),
    ],
)
def test_headers_that_make_no_sense_are_refused(entry, words, tmp_path):
    path = write_raw(tmp_path / "edit.safetensors", entry, {"layer.1.log_gates": LOGS})
    if not words:
        assert kvw.load_edit(path).metadata == EditMetadata()
        return
    with pytest.raises(kvw.UserError) as caught:
        kvw.load_edit(path)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": [], "shape": [6], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [6], "data_offsets": [{}, True]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [0, 2**63 - 1], "data_offsets": [0, 0]},
        {"dtype": "F32", "shape": "6", "data_offsets": [0, 24]},
        [],
        None,
    ],
)
def test_tensors_that_make_no_sense_are_refused(tensor, tmp_path):
    """The digest fits: only what the header says of its tensor is wrong."""
    header = json.dumps({"__metadata__": {ENTRY: json.dumps(HEADER)}, "layer.1.log_gates": tensor}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(24)
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "edit.safetensors").write_bytes(content.replace(BLANK.encode(), digest.encode(), 1))
    with pytest.raises(kvw.UserError):
        kvw.load_edit(tmp_path / "edit.safetensors")


def test_edits_of_earlier_versions_are_told_apart_from_other_files(tmp_path):
    path = tmp_path / "edit.safetensors"
    save_file({"layer.1.log_gates": LOGS}, path, {"format": "kvw edit 3", "kind": "gates", "metadata": "{}"})
    with pytest.raises(kvw.UserError, match=r"'kvw edit 3', of an earlier version\n.* make the edit again"):
        kvw.load_edit(path)
    save_file({"a": LOGS}, path, {"format": "pt"})
    with pytest.raises(kvw.UserError, match="format 'pt'"):
        kvw.load_edit(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_a_message(tmp_path):
    gate_edit().save(tmp_path / "edit.safetensors")
    (tmp_path / "edit.safetensors").chmod(0)
    with pytest.raises(kvw.UserError, match="could not be read"):
        kvw.load_edit(tmp_path / "edit.safetensors")


def test_a_checkpoint_named_by_mistake_is_not_read_to_its_end(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(2**42)  # a hole: it takes no room, and reading it would take all memory
    with pytest.raises(kvw.UserError, match="not an edit file"):
        kvw.load_edit(tmp_path / "model.safetensors")


WHOLE = (torch.int64, torch.bool, torch.uint8)
dtypes = st.sampled_from(
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.float8_e4m3fn, *WHOLE]
)
shapes = st.lists(st.integers(0, 4), max_size=3)
parts = st.sampled_from(["log_gates", "steps", "patterns", "filters", "filter", "direction", "strength"])
names = st.one_of(
    st.text(max_size=8),
    st.builds("layer.{}.{}".format, st.integers(-1, 3), parts),
    st.builds("layer.{}.expert.{}.{}".format, st.integers(0, 3), st.integers(0, 3), parts),
    st.sampled_from(
        ["strength", "last_only", "decoding", "condition.layer", "condition.filter", "condition.threshold"]
    ),
)
fills = st.sampled_from([0.0, -1.0, 1.0, 0.5, float("nan"), float("inf"), -1e30])
tensors = st.builds(
    lambda shape, dtype, fill: torch.full(shape, 1.0 if dtype in WHOLE else fill).to(dtype), shapes, dtypes, fills
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
fields = st.dictionaries(st.sampled_from(sorted(EditMetadata.model_fields)), json_values, max_size=3)


@pytest.mark.thorough
@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([make().kind for make in MAKE]),
    st.dictionaries(names, tensors, max_size=5),
    fields,
    st.sampled_from([None, *MAKE]),
)
def test_whatever_a_file_says_it_is_an_edit_or_a_message(tmp_path_factory, kind, tensors, metadata, make):
    """Sealed files with anything in them: what is loaded can be described, and all else is a plain message."""
    path = tmp_path_factory.mktemp("fuzz") / "edit.safetensors"
    if make is not None:
        kind, tensors = make().kind, {**make().tensors(), **dict(list(tensors.items())[:1])}
    try:
        write(path, kind, tensors, **metadata)
    except (ValueError, UnicodeEncodeError):  # nothing that safetensors can hold
        return
    try:
        edit = kvw.load_edit(path)
    except kvw.UserError:
        return
    edit.save(path)
    assert repr(kvw.load_edit(path).describe()) == repr(edit.describe())
