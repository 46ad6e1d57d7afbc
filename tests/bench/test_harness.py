"""The evaluation harness asks a model with an edit in force, and no other."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from kvw.bench import harness, lmms
from kvw.edits.edit import EditMetadata
from kvw.edits.gates import GateEdit
from kvw.errors import UserError
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey


class Asked:
    """In the place of the harness's own classes."""

    def __init__(self, pretrained, tokenizer, **given):
        self.model, self.tokenizer, self.given = pretrained, tokenizer, given


@pytest.fixture
def registered(monkeypatch, llava, llava_processor):
    """The harness's table of models, as a stand-in keeps it."""
    table, modules = {}, {}
    for name in ("lm_eval", "lm_eval.api", "lm_eval.api.registry", "lm_eval.models", "lm_eval.__main__"):
        modules[name] = ModuleType(name)
    for name, (module, kind) in harness.MODELS.items():
        modules[f"lm_eval.models.{module}"] = SimpleNamespace(**{kind: type(name, (Asked,), {})})
    modules["lm_eval.api.registry"].register_model = lambda name: lambda kind: table.setdefault(name, kind)
    modules["lm_eval.__main__"].cli_evaluate = lambda: None
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    loaded = SimpleNamespace(model=llava, processor=llava_processor, fingerprint="f")
    monkeypatch.setattr(harness, "find_checkpoint", lambda name: name)
    monkeypatch.setattr(harness.Loaded, "load", lambda _: loaded)
    assert harness.main() == 0
    return table


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(5)[None]).logits


@pytest.mark.parametrize("name", harness.MODELS)
def test_the_edit_is_in_force_while_the_model_is_asked(registered, tmp_path, llava, name):
    before = logits(llava)
    width = find_value_matrices(llava)[0].width
    metadata = EditMetadata(model_fingerprint="f")
    GateEdit({MatrixKey(0): torch.full((width,), -3.0)}, metadata).save(tmp_path / "edit.safetensors")
    plain = registered[name](pretrained="m", batch_size=2)
    assert plain.given == {"batch_size": 2}
    assert torch.equal(logits(plain.model), before)
    asked = registered[name](pretrained="m", edit=str(tmp_path / "edit.safetensors"))
    assert not torch.equal(logits(asked.model), before)


def test_an_edit_of_other_weights_is_refused(registered, tmp_path):
    edit = GateEdit({MatrixKey(0): torch.full((4,), -3.0)}, EditMetadata(model_fingerprint="g"))
    edit.save(tmp_path / "edit.safetensors")
    with pytest.raises(UserError, match="weights"):
        registered["kvw-text"](pretrained="m", edit=str(tmp_path / "edit.safetensors"))


@pytest.mark.parametrize(
    ("command", "installed"), [(harness, '"kvw[harness]"'), (lmms, 'lmms-eval "filelock<3.21"')], ids=["lm", "lmms"]
)
def test_without_their_harness_what_installs_it_is_named(monkeypatch, capsys, command, installed):
    def absent(name):
        raise ModuleNotFoundError(name=name.partition(".")[0])

    monkeypatch.setattr("kvw.optional.import_module", absent)
    assert command.main() == 2
    assert f"pip install {installed}" in capsys.readouterr().err
