"""``kvw chat`` asks where the model writes its answer."""

from __future__ import annotations

import pytest
from tests import text_models

from kvw.models.checkpoint import find_checkpoint
from kvw.progress import SILENT
from kvw.runs.chat import Conversation

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASKED = "{% if add_generation_prompt %}<|im_start|>assistant\nOPENED{% endif %}{# knows </think> #}"
QUESTION = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("opened", "place"), [("<think>\n", "<think>\n\n</think>\n\n"), ("<think></think>", "<think></think>"), ("", "")]
)
def test_a_model_that_thinks_is_asked_after_its_thought(opened, place, tmp_path, monkeypatch):
    text_models.save("qwen3", tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(TURNS + ASKED.replace("OPENED", opened), "utf-8")
    conversation = Conversation(find_checkpoint(str(tmp_path / "model")), None, (), SILENT, max_new_tokens=2)
    asked = []
    generate = conversation._loaded.model.generate
    monkeypatch.setattr(
        conversation._loaded.model, "generate", lambda **given: asked.append(given) or generate(**given)
    )
    assert set(conversation.answer("Who?")) == {"original"}
    (row,) = asked[0]["input_ids"]
    assert conversation._loaded.processor.tokenizer.decode(row) == QUESTION + place
