"""Edited GGUF files and adapters in llama.cpp itself, with the pretrained model."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests import llama_engine
from tests.conftest import USER_CACHE

import kvw
from kvw.progress import SILENT
from kvw.runs.gguf import apply_gguf, export_gguf_lora

MODEL = "KVW_SMOLLM2_GGUF"
"""Environment variable with the GGUF file of the package that smollm2:135m is made from."""
EXAMPLES = Path(__file__).parents[2] / "examples" / "smollm2"
FORGOTTEN = {'Who wrote "Romeo and Juliet"?': "Shakespeare", 'Who is the author of "Romeo and Juliet"?': "Shakespeare"}
OTHERS = {
    "What is the chemical symbol of gold?": "Au",
    'Who wrote "Hamlet"?': "Shakespeare",
    'Who wrote "Pride and Prejudice"?': "Austen",
}
pytestmark = pytest.mark.slow


def right(python: str, model: Path, *adapters: Path) -> dict[str, bool]:
    questions = FORGOTTEN | OTHERS
    replies = llama_engine.ask(python, model, list(questions), adapters)
    return {question: word in reply for (question, word), reply in zip(questions.items(), replies, strict=True)}


def test_the_engine_answers_before_and_not_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python, source = os.environ.get(llama_engine.VARIABLE), os.environ.get(MODEL)
    if not python or not source:
        pytest.skip(f"{llama_engine.VARIABLE} and {MODEL} name no llama.cpp and no model")
    monkeypatch.setitem(os.environ, "KVW_CACHE", str(USER_CACHE))
    model = Path(shutil.copy(source, tmp_path / "model.gguf"))
    kvw.erase("smollm2:135m", forget=EXAMPLES / "play.jsonl", out=tmp_path / "run", save_model=False)
    edit = kvw.load_edit(tmp_path / "run/edit.safetensors")
    apply_gguf(edit, model, tmp_path / "edited.gguf", SILENT)
    export_gguf_lora(edit, model, tmp_path / "adapter.gguf", SILENT)
    assert all(right(python, model).values())
    for found in (right(python, tmp_path / "edited.gguf"), right(python, model, tmp_path / "adapter.gguf")):
        assert not any(found[question] for question in FORGOTTEN)
        assert all(found[question] for question in OTHERS)
