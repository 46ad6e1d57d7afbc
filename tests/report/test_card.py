"""The model card: what it says, what it keeps, and what it never holds."""

from __future__ import annotations

import json
import shlex

import pytest
from huggingface_hub import ModelCard

from kvw.cli import app
from kvw.edits.edit import EditMetadata
from kvw.edits.summary import LayerSummary
from kvw.evaluation import Summary
from kvw.methods.settings import KvwSettings
from kvw.report.card import BEGIN, END, model_card, options
from kvw.runs.record import SplitPart

METADATA = EditMetadata(
    method="kvw",
    settings={"gamma": 0.03, "layers": [1, 25], "steps": 7, "seed": None},
    base_model="owner/name@abc",
    model_fingerprint="f" * 64,
    forget_digest="a" * 64,
    retain_digest="b" * 64,
    forget_count=7,
    versions={"kvw": "1.2.3"},
)
LAYERS = [
    LayerSummary(key="layer.1", vectors=1000, weakened=10, mean_gate=0.9, smallest_gate=0.1, total_exponent=3.0),
    LayerSummary(key="layer.2", vectors=1000, weakened=20, mean_gate=0.8, smallest_gate=0.25, total_exponent=5.0),
]
SOURCE = """---
license: llama2
base_model: grand/parent
tags: [vision]
model-index:
- name: x
  results:
  - task: {type: vqa}
    dataset: {type: d, name: d}
    metrics: [{type: accuracy, value: 1}]
some_key_of_theirs: {a: [1, 2]}
---

# A model

Its text, with --- and | in it.
"""


def summary(exact):
    values = dict.fromkeys(("substring", "rouge_l_f", "rouge_l_recall", "probability"), exact)
    return Summary(count=5, failed=0, exact=exact, **values)


def split(before, after):
    return SplitPart(file="f.jsonl", of=9, digest="d", original=summary(before), unlearned=summary(after))


def load(text, tmp_path):
    (tmp_path / "README.md").write_text(text)
    return ModelCard.load(tmp_path / "README.md")


def test_it_says_what_how_how_much_and_how_again():
    text = model_card(METADATA, LAYERS, scores={"forget": split(1, 0.125), "a|b": split(0.5, 0.5)})
    assert f"| forget | 7 | {'a' * 64} |" in text
    assert f"| retain | not known | {'b' * 64} |" in text
    assert '"gamma": 0.03' in text
    assert "30 of 2,000 knowledge vectors in 2 value matrices (layer.1 to layer.2)" in text
    assert "most in layer.2 (mean gate 0.800, smallest 0.25)" in text
    assert "| forget | 5 of 9 | 1.000 → 0.125 |" in text
    assert "| a\\|b | 5 of 9 |" in text
    assert (
        "kvw erase owner/name@abc --forget FORGET --retain RETAIN --out run --method kvw --gamma 0.03 --layers 1:25\n"
        in text
    )
    assert "kvw apply run/edit.safetensors owner/name@abc --out model" in text
    assert f"edit was made on: {'f' * 64}" in text
    assert "kvw 1.2.3." in text


def test_scores_that_nobody_knows_are_not_made_up():
    text = model_card(METADATA, LAYERS)
    assert "Not known: this model was written from an edit file" in text
    assert "→" not in text


def test_the_readme_of_the_source_stays(tmp_path):
    text = model_card(METADATA, LAYERS, source=SOURCE)
    card = load(text, tmp_path)
    assert SOURCE.split("---\n", 2)[2].rstrip() in text
    assert card.data.license == "llama2"
    assert card.data.base_model == "owner/name"
    assert card.data.tags == ["vision", "unlearning", "kvw"]
    assert card.data.some_key_of_theirs == {"a": [1, 2]}
    assert card.data.eval_results is None  # the scores in the source's front matter are the source's
    assert text.index("# A model") < text.index(BEGIN) < text.index(END)


@pytest.mark.parametrize(
    "source",
    [
        None,
        "",
        "# Only text\n",
        "---\n\n---\n# x",
        "---\ntags: vision\n---\n# x",
        "\ufeff---\r\nlicense: mit\r\n---\r\n# x\r\n",
    ],
)
def test_any_readme_gets_a_front_matter(tmp_path, source):
    card = load(model_card(METADATA, LAYERS, source=source), tmp_path)
    assert card.data.base_model == "owner/name"
    assert card.data.tags[-2:] == ["unlearning", "kvw"]
    assert ("vision" in card.data.tags) == ("vision" in (source or ""))
    assert card.data.license == ("mit" if source and "mit" in source else None)
    assert card.text.count("\n# ") + card.text.startswith("# ") == 1


@pytest.mark.parametrize("broken", ["---\na: [\n---\n# x\n", "---\n- a\n---\n# x\n", "---\n1: a\n---\n# x\n"])
def test_a_broken_front_matter_stays_in_the_text(tmp_path, broken):
    text = model_card(METADATA, LAYERS, source=broken)
    assert load(text, tmp_path).data.tags == ["unlearning", "kvw"]
    assert broken.rstrip() in text


def test_a_local_model_is_no_base_model_of_the_hub(tmp_path):
    local = METADATA.model_copy(update={"base_model": "folder"})
    assert load(model_card(local, LAYERS), tmp_path).data.base_model is None
    assert load(model_card(local, LAYERS, source=SOURCE), tmp_path).data.base_model == "grand/parent"
    assert "weights of `folder`" in model_card(local, LAYERS)


def test_a_second_edit_adds_a_second_section(tmp_path):
    first = model_card(METADATA, LAYERS, source=SOURCE)
    second = model_card(METADATA.model_copy(update={"forget_count": 99}), LAYERS, source=first)
    assert second.startswith(first[: first.index(BEGIN)])
    assert second.count(BEGIN) == second.count(END) == 2
    assert first[first.index(BEGIN) :].rstrip() in second
    assert second.index("| forget | 7 |") < second.index("| forget | 99 |")
    assert load(second, tmp_path).data.tags == ["vision", "unlearning", "kvw"]


def test_an_edit_of_nothing_known():
    text = model_card(EditMetadata(), [])
    assert "changes no value matrix" in text
    assert "kvw erase MODEL " in text


@pytest.mark.parametrize(
    "settings",
    [
        KvwSettings(),
        KvwSettings(gamma=0.5, layers=(0, 3), update_every=2, epochs=3, seed=5),
        KvwSettings(retain_contrast=False, positions="all", schedule="one-shot", seed=0),
        KvwSettings(parity=True),
    ],
)
def test_the_command_line_reads_the_options_back(settings):
    recorded = json.loads(json.dumps(vars(settings)))
    command = f"erase MODEL --forget F --retain R --out run {options(recorded)}"
    _, bound, _ = app.parse_args(shlex.split(command), print_error=False, exit_on_error=False)
    found = bound.arguments["options"].settings() if "options" in bound.arguments else KvwSettings(seed=0)
    assert vars(found) == {**vars(settings), "seed": settings.seed or 0}
