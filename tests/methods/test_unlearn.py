"""Any method in one call from Python."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from tests.batches import text_batch
from tests.measuring.test_given import same
from tests.text_models import build

import kvw
from kvw.data import Example
from kvw.methods.registry import METHODS, get_method

ALIKE = [Example(f"Who is person {n}?", f"A baker {n}") for n in range(10)]
FORGET = [Example(f"Where does person {n} live?", f"In town {n}", metadata={"subject": f"p{n}"}) for n in range(4)]
RETAIN = [
    Example(f"What is the job of person {n}?", f"A baker {n}", metadata={"subject": f"p{n}"}) for n in range(9, 17)
]
FAST = {
    "kvw": {"min_tokens": 1, "layers": "0:1"},
    "conditional-kvw": {"layers": "1:2"},
    "steering": {"layers": "1:2"},
    "subspace": {"layers": (0, 1)},
    "manu": {"parts": ("language",)},
    "dpo": {"alternatives": ["Nobody", "No one", "None", "Nowhere"]},
}


@pytest.fixture(scope="module")
def text():
    return build("llama")


@pytest.mark.thorough
@pytest.mark.parametrize("method", [name for name in METHODS if name != "auvic"])  # which needs pictures
def test_every_method_makes_an_edit_and_leaves_the_model_as_it_was(text, method, tmp_path):
    model, tokenizer = text
    before = copy.deepcopy(model.state_dict())
    settings = FAST.get(method, {})
    if "offset" in get_method(method).setting_classes[0].__dataclass_fields__:
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        settings = {"offset": str(tmp_path)}
    edit = kvw.unlearn(model, FORGET, RETAIN, settings, method=method, processor=tokenizer, on_warning=str)
    assert edit.metadata.method == method
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    edit.save(tmp_path / "edit.safetensors")
    assert same(edit, kvw.load_edit(tmp_path / "edit.safetensors"))


def test_settings_go_to_the_method(text):
    model, tokenizer = text
    made = [
        kvw.unlearn(model, FORGET, RETAIN, settings, processor=tokenizer, on_warning=str)
        for settings in ({"rank": 1}, kvw.SubspaceSettings(rank=1), None)
    ]
    assert same(made[0], made[1])
    assert not same(made[0], made[2])
    assert made[0].metadata.settings["rank"] == 1
    assert same(made[2], kvw.subspace(model, FORGET, RETAIN, processor=tokenizer, on_warning=str))


def test_batches_of_kvw_bring_examples_and_processor(text):
    model, tokenizer = text
    sets = (kvw.batches(model, tokenizer, examples) for examples in (FORGET, RETAIN))
    found = kvw.steering(model, *sets, FAST["steering"])
    again = kvw.unlearn(model, FORGET, RETAIN, FAST["steering"], method="steering", processor=tokenizer)
    assert same(found, again)


@pytest.mark.thorough
@pytest.mark.parametrize("made", [kvw.steering, partial(kvw.unlearn, method="steering")])
def test_what_a_method_warns_of_is_a_warning_of_python(text, made):
    model, tokenizer = text
    with pytest.warns(UserWarning, match="does not tell the forget set from") as warned:
        made(model, ALIKE, ALIKE, FAST["steering"], processor=tokenizer)
    told = []
    made(model, ALIKE, ALIKE, FAST["steering"], processor=tokenizer, on_warning=told.append)
    assert [str(one.message) for one in warned] == told
    assert all(one.filename == __file__ for one in warned)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"forget": []}, "forget set is empty"),
        ({"retain": []}, "Nothing says what must stay"),
        ({"method": "npoo"}, "npo"),
        ({"settings": {"rnk": 1}}, "no setting 'rnk'"),
        ({"settings": {"rank": "many"}}, "rank"),
        ({"processor": None}, "no processor to ask them with"),
        (
            {"forget": [text_batch(1, 9, 3, 0)], "method": "npo"},
            r"(?s)reads the examples of the forget set.*kvw\.batches",
        ),
        ({"retain": [text_batch(1, 9, 3, 0)]}, "reads the examples of the retain set"),
        ({"method": "dpo", "settings": {"alternatives": ["one"]}}, "alternatives|preferred"),
    ],
    ids=str,
)
def test_what_cannot_be_used_ends_in_a_plain_message(text, more, words):
    model, tokenizer = text
    given = {"forget": FORGET, "retain": RETAIN, "processor": tokenizer, "on_warning": str, **more}
    with pytest.raises(kvw.UserError, match=words):
        kvw.unlearn(model, **given)


def test_a_retain_set_may_be_absent_where_it_is_not_read(text):
    model, tokenizer = text
    settings = {"retain_contrast": False, "layers": "0:1"}
    edit = kvw.unlearn(model, FORGET, settings=settings, method="kvw", processor=tokenizer)
    assert same(edit, kvw.weaken(model, FORGET, None, settings, processor=tokenizer))
