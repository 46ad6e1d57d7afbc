"""KVW under a condition, from examples to an edit."""

from __future__ import annotations

import json

import pytest
import torch
from tests.methods.test_steering import examples

import kvw
from kvw.data import Example, prepare
from kvw.edits import ConditionalGateEdit
from kvw.evaluation.loaded import Loaded
from kvw.methods.conditional_kvw.condition import find_condition
from kvw.methods.conditional_kvw.settings import ConditionalKvwSettings
from kvw.methods.kvw.settings import KvwSettings
from kvw.methods.registry import get_method
from kvw.methods.steering.null_space import null_space, solve_filter
from kvw.methods.steering.states import read_states, readings
from kvw.models.loading import find_checkpoint
from kvw.runs.erase import erase
from kvw.runs.request import EraseRequest
from kvw.runs.unlearning import unlearn

pytestmark = pytest.mark.thorough

FORGET, RETAIN = examples(6, 0), examples(8, 1)


@pytest.fixture(scope="module")
def loaded(saved):
    return Loaded.load(find_checkpoint(str(saved["llava"])), "cpu")


def made(loaded, **values):
    settings = ConditionalKvwSettings(**values)
    return unlearn(get_method("conditional-kvw"), loaded, FORGET, RETAIN, settings, lambda *_: None)


def test_it_is_one_shot_kvw_under_the_filter_of_steering(loaded):
    found = made(loaded, gamma=0.5, layers=(2, 3), threshold=0.4, ratio=0.5, ridge=0.2)
    assert isinstance(found.edit, ConditionalGateEdit)
    settings = KvwSettings(gamma=0.5, layers=(2, 3), schedule="one-shot")
    expected = unlearn(get_method("kvw"), loaded, FORGET, RETAIN, settings, lambda *_: None).edit
    assert found.edit.gates.log_gates.keys() == expected.log_gates.keys()
    assert all(torch.equal(found.edit.gates.log_gates[key], value) for key, value in expected.log_gates.items())
    forget, retain = (
        read_states(loaded.model, readings(prepare(some, loaded.processor), loaded.processor), [2])[2]
        for some in (FORGET, RETAIN)
    )
    filter_ = solve_filter(forget, null_space(retain, ratio=0.5)[0], 0.2).float()
    assert torch.equal(found.edit.condition.filter, filter_)
    assert (found.edit.condition.layer, found.edit.condition.threshold) == (2, 0.4)
    metadata = found.edit.metadata
    assert (metadata.method, metadata.forget_count, metadata.retain_count) == ("conditional-kvw", 6, 8)
    assert metadata.model_fingerprint == loaded.fingerprint
    assert metadata.settings == {
        "gamma": 0.5,
        "layers": (2, 3),
        "threshold": 0.4,
        "ratio": 0.5,
        "energy": None,
        "ridge": 0.2,
        "min_tokens": 16,
        "steps": 6,
    }


@pytest.mark.parametrize("values", [{"ratio": 0.9}, {"energy": 0.3}, {"ridge": 5.0}, {"layers": (2, 3)}])
def test_settings_of_the_filter_change_it(loaded, values):
    plain, other = (
        find_condition(loaded.model, loaded.processor, FORGET, RETAIN, ConditionalKvwSettings(**some))[0]
        for some in ({}, values)
    )
    assert not torch.allclose(plain.filter, other.filter, rtol=1e-3)


def test_a_filter_that_tells_nobody_apart_is_warned_about(loaded):
    same = ConditionalKvwSettings(layers=(1, 3), ratio=0.9)
    found = unlearn(get_method("conditional-kvw"), loaded, examples(10, 0), examples(10, 0), same, lambda *_: None)
    assert "does not tell the forget set from the retain set" in found.warnings[0]


def test_it_works_in_the_last_two_thirds_of_the_layers():
    settings = ConditionalKvwSettings()
    assert [settings.chosen_layers(depth) for depth in (1, 4, 6, 32)] == [(0, 0), (1, 3), (2, 5), (10, 31)]
    assert ConditionalKvwSettings(layers=(3, 3)).chosen_layers(6) == (3, 3)
    with pytest.raises(kvw.UserError, match="does not fit this model"):
        ConditionalKvwSettings(layers=(3, 6)).chosen_layers(6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gamma": 0.0}, "gamma"),
        ({"threshold": float("nan")}, "threshold must be"),
        ({"ratio": 0}, "ratio must be a number above 0"),
        ({"energy": 2.0}, "energy must be"),
        ({"ridge": -1.0}, "ridge must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(kvw.UserError, match=message):
        ConditionalKvwSettings(**values)


def test_experts_are_left_alone_as_by_kvw(loaded):
    assert ConditionalKvwSettings(min_tokens=5).weakening((1, 2)).min_tokens == 5


def test_empty_sets_are_refused(loaded):
    for sets in (([], RETAIN), (FORGET, [])):
        with pytest.raises(kvw.UserError, match="set is empty"):
            find_condition(loaded.model, loaded.processor, *sets, ConditionalKvwSettings())


def test_plain_text_in_the_retain_set_is_left_out(loaded):
    plain = Example("", "The kettle whistled in the kitchen.", plain=True)
    found = [
        find_condition(loaded.model, loaded.processor, FORGET, kept, ConditionalKvwSettings())[0].filter
        for kept in (RETAIN, [plain, *RETAIN])
    ]
    assert torch.equal(*found)


def test_a_recipe_and_the_command_line_know_it(saved, tmp_path):
    assert get_method("conditional-kvw").acts_by == "hooks"
    assert get_method("conditional-kvw").read({"layers": "1:3"}).layers == (1, 3)
    assert len(get_method("conditional-kvw").combinations({"gamma": [0.1, 0.2], "threshold": [0.3, 0.5]})) == 4
    files = [tmp_path / "forget.jsonl", tmp_path / "retain.jsonl"]
    for number, file in enumerate(files):
        rows = [{"question": example.question, "answer": example.answer} for example in examples(6, number)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Random weights lose by chance what they never knew.
    more = {"device": "cpu", "max_new_tokens": 4, "write_damaged": True}
    request = EraseRequest(
        find_checkpoint(str(saved["llava"])), *files, tmp_path / "run", method="conditional-kvw", **more
    )
    record = erase(request)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        ".kvw",
        "edit.safetensors",
        "run.json",
        "samples.jsonl",
        "report.html",
        "evidence.json",
    }
    assert kvw.load_edit(tmp_path / "run" / "edit.safetensors").kind == "conditional gates"
    assert not any("no model is written" in warning for warning in record.warnings)
