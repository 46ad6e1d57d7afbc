"""One rule on the weights that an edit is used with, whatever the command."""

from __future__ import annotations

import json

import pytest
from tests.program import assert_refused, run
from tests.tiny_models import noise_png

import kvw
from kvw.edits.edit import EditMetadata
from kvw.measuring.fingerprint import weights_digest
from kvw.models.finding import find_value_matrices
from kvw.models.loading import find_checkpoint, skeleton
from kvw.progress import SILENT, Silent
from kvw.runs.chat import Conversation
from kvw.runs.evaluate import evaluate
from kvw.runs.weights import check_weights


class Listening(Silent):
    """Keeps warnings."""

    def __init__(self):
        self.warnings = []

    def warn(self, text):
        self.warnings.append(text)


def edit_of(folder, **metadata):
    matrices = find_value_matrices(skeleton(find_checkpoint(str(folder))))
    logs = {matrix.key: -matrix.module.weight.new_ones(matrix.width, device="cpu") for matrix in matrices[1:]}
    return kvw.GateEdit(logs, EditMetadata(base_model="llava", **metadata))


@pytest.fixture
def files(saved, tmp_path, monkeypatch):
    """A folder with an edit that was made on other weights than those of the model, and a data file."""
    monkeypatch.chdir(tmp_path)
    edit_of(saved["llava"], model_fingerprint="0" * 64).save("edit.safetensors")
    (tmp_path / "picture.png").write_bytes(noise_png(0))
    (tmp_path / "data.jsonl").write_text(json.dumps({"question": "Who?", "answer": "Anna", "image": "picture.png"}))


COMMANDS = {
    "apply": ["apply", "edit.safetensors", "MODEL", "--out", "out"],
    "chat": ["chat", "MODEL", "--edit", "edit.safetensors", "--ask", "Who?", "--device", "cpu"],
    "evaluate": ["evaluate", "MODEL", "--edit", "edit.safetensors", "--data", "data.jsonl", "--device", "cpu"],
    "serve": ["serve", "MODEL", "--edit", "a=edit.safetensors", "--port", "0", "--device", "cpu"],
    "export": ["edit", "export", "edit.safetensors", "MODEL", "--format", "lora", "--out", "out"],
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.thorough
def test_every_command_refuses_other_weights_and_allows_them_on_request(
    name, files, saved, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("kvw.serving.listening.run", lambda *_: None)
    command = [saved["llava"] if word == "MODEL" else word for word in COMMANDS[name]]
    assert_refused(capsys, run(*command), "was made on other weights", "0" * 12, "--other-weights")
    assert not (tmp_path / "out").exists()
    assert run(*command, "--other-weights") == 0
    assert "with other weights" in capsys.readouterr().err


@pytest.mark.thorough
def test_from_python_too(files, saved, tmp_path):
    model, edit = find_checkpoint(str(saved["llava"])), kvw.load_edit("edit.safetensors")
    for use in (
        lambda **options: Conversation(model, edit, (), SILENT, device="cpu", **options),
        lambda **options: evaluate(model, tmp_path / "data.jsonl", SILENT, edit=edit, device="cpu", **options),
    ):
        with pytest.raises(kvw.UserError, match="made on other weights"):
            use()
        use(other_weights=True)


def test_what_the_rule_says(saved):
    here, said = weights_digest(saved["llava"]), Listening()
    edit = edit_of(saved["llava"], model_fingerprint=here)
    assert check_weights(edit, here, said)
    assert said.warnings == []
    assert not check_weights(edit, "0" * 64, said, other_weights=True)
    assert "says nothing about this model" in said.warnings.pop()
    assert not check_weights(edit_of(saved["llava"]), here, said, name="alice")
    assert "'alice' does not say which weights" in said.warnings.pop()
    for inverse in (kvw.invert(edit), kvw.scale(kvw.invert(edit), 0.5), kvw.compose(edit, kvw.invert(edit))):
        assert not check_weights(inverse, "0" * 64, said)
        assert said.warnings == []
        check_weights(inverse, here, said)
        assert "without any edit in them" in said.warnings.pop()
