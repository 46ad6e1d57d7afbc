"""lmms-eval asks a model with an edit in force, and gets the replies of ``kvw evaluate``."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from PIL import Image

from kvw.bench import harness, lmms
from kvw.data import Example
from kvw.data.images import png
from kvw.edits.edit import EditMetadata
from kvw.edits.gates import GateEdit
from kvw.errors import UserError
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.loaded import Loaded
from kvw.models.checkpoint import find_checkpoint
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey

RED, BLUE = (Image.new("RGB", (30, 30), colour) for colour in ("red", "blue"))
QUESTIONS = [("What is this?", [RED], 4), ("Who is shown?", [BLUE], 9), ("Which day is it?", [], 4)]


class Theirs:
    """In the place of the harness's own class."""

    def __init__(self):
        self.task_dict = {}


@pytest.fixture
def edited_model(monkeypatch, saved):
    """The class that their registry finds, as a stand-in of it does, and the model that it loads."""
    found = []
    modules = {
        "lmms_eval": ModuleType("lmms_eval"),
        "lmms_eval.api.model": SimpleNamespace(lmms=Theirs),
        "lmms_eval.models": SimpleNamespace(MODEL_REGISTRY_V2=SimpleNamespace(register_manifest=found.append)),
        "lmms_eval.models.registry_v2": SimpleNamespace(
            ModelManifest=lambda name, simple_class_path: simple_class_path
        ),
        "lmms_eval.cli.dispatch": SimpleNamespace(main=lambda: None),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    loaded = Loaded.load(find_checkpoint(str(saved["llava"])))
    monkeypatch.setattr(harness.Loaded, "load", lambda _: loaded)
    assert lmms.main() == 0
    (path,) = found
    module, _, name = path.rpartition(".")
    return getattr(sys.modules[module], name), loaded, saved["llava"]


def request(place, **said):
    text, _, length = QUESTIONS[place]
    said = {"max_new_tokens": length, "until": [], **said}
    return SimpleNamespace(args=(text, said, lambda row: row["pictures"], place, "task", "test"))


def asked(model, **said):
    model.task_dict = {"task": {"test": [{"pictures": pictures} for _, pictures, _ in QUESTIONS]}}
    return model.generate_until([request(place, **said) for place in range(len(QUESTIONS))])


def replies(loaded):
    return [
        generate_answers(
            loaded.model,
            loaded.processor,
            loaded.prepare([Example(text, "-", tuple(map(png, pictures)))]),
            max_new_tokens=length,
        )[0]
        for text, pictures, length in QUESTIONS
    ]


@pytest.mark.thorough
def test_replies_are_those_of_kvw_with_the_edit_in_force(edited_model, tmp_path):
    kind, loaded, folder = edited_model
    before = replies(loaded)
    assert asked(kind(pretrained=str(folder), batch_size=1, device="cpu")) == before
    matrix = find_value_matrices(loaded.model)[0]
    edit = GateEdit(
        {MatrixKey(0): torch.full((matrix.width,), -9.0)}, EditMetadata(model_fingerprint=loaded.fingerprint)
    )
    edit.save(tmp_path / "edit.safetensors")
    edited = asked(kind(pretrained=str(folder), edit=str(tmp_path / "edit.safetensors")))
    assert edited == replies(loaded)  # the edit stays in force
    assert edited != before


@pytest.mark.thorough
def test_a_reply_is_cut_where_the_task_says(edited_model):
    kind, loaded, folder = edited_model
    (before, *_), end = replies(loaded), replies(loaded)[0][2]
    assert asked(kind(pretrained=str(folder)), until=[end])[0] == before.split(end)[0]
    assert asked(kind(pretrained=str(folder)), until=end)[0] == before.split(end)[0]


def test_what_kvw_does_not_do_is_told(edited_model):
    kind, _, folder = edited_model
    model = kind(pretrained=str(folder))
    with pytest.raises(UserError, match="at random"):
        asked(model, do_sample=True, temperature=0.7)
    for refused in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(UserError, match="probabilities"):
            refused([])


def test_the_module_has_nothing_else_of_theirs():
    with pytest.raises(AttributeError):
        lmms.nothing_of_this_name  # noqa: B018
