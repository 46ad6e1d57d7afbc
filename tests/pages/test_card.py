"""The model card: what it says, what it keeps, and what it never holds."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from kvw.cli import app
from kvw.edits.edit import EditMetadata
from kvw.edits.summary import LayerSummary
from kvw.evaluation.records import Summary
from kvw.measuring.sources import Sources
from kvw.methods.kvw.settings import KvwSettings
from kvw.methods.registry import get_method
from kvw.methods.steering.settings import SteeringSettings
from kvw.methods.subspace.baselines.settings import LeaceSettings
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.models.checkpoint import find_checkpoint
from kvw.pages.card import BEGIN, END, model_card, options
from kvw.records.run import AnswersPart, AskedPart, CandidatePart, JudgedPart, KeptPart, SelectionPart, SplitPart
from kvw.retain import SOURCES
from kvw.runs.record_parts import asked_part
from kvw.runs.request import EraseRequest

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
    answers = AnswersPart(original={}, unlearned={}, lost=0, gained=0)
    counts = {"of": 9, "pictures": 0, "subjects": 0}
    return SplitPart(
        file="f.jsonl", **counts, digest="d", answers=answers, original=summary(before), unlearned=summary(after)
    )


def load(text, tmp_path):
    (tmp_path / "README.md").write_text(text)
    return ModelCard.load(tmp_path / "README.md")


def test_it_says_what_how_how_much_and_how_again():
    text = model_card(METADATA, LAYERS, scores={"forget": split(1, 0.125), "a|b": split(0.5, 0.5)})
    assert f"| forget | 7 | `{'a' * 64}` |" in text
    assert f"| retain | not known | `{'b' * 64}` |" in text
    assert '"gamma": 0.03' in text
    assert "30 of 2,000 knowledge vectors in 2 value matrices (layer.1 to layer.2)" in text
    assert "most in layer.2 (mean gate 0.800, smallest 0.25)" in text
    assert "| `forget` | 5 of 9 | 1.000 → 0.125 |" in text
    assert "| `a\\|b` | 5 of 9 |" in text
    assert (
        "kvw erase owner/name@abc --forget FORGET --retain RETAIN --out run --method kvw --gamma 0.03 --layers 1:25 "
        "--set seed=none\n" in text
    )
    assert "kvw apply run/edit.safetensors owner/name@abc --out model" in text
    assert f"edit was made on: `{'f' * 64}`." in text
    assert "Versions: `kvw 1.2.3`." in text


def selection(dose, keep=0.98, unit="strength"):
    kept = {"held-out retain": KeptPart(value=0.9912, error=0.001), "plain text": KeptPart(value=1.0, error=0.0)}

    def asked(answered):
        part = JudgedPart(questions=4, answered=answered, probability=0.5, perplexity=9.0)
        return {"forget": part, "forget, own words": part, "held-out retain": part}

    tried = [CandidatePart(dose=9.0, chosen=False, splits={}, kept={})]
    tried.append(CandidatePart(dose=dose, chosen=True, splits=asked(1), kept=kept))
    return SelectionPart(keep=keep, unit=unit if dose else "", sources=[], original=asked(3), candidates=tried)


def test_it_says_how_strong_the_edit_is_and_what_it_keeps():
    chosen = METADATA.model_copy(update={"settings": {**METADATA.settings, "chosen": {"strength": 0.25}}})
    text = model_card(chosen, LAYERS, selection=selection(0.25, keep=0.985))
    assert (
        "The strength was chosen to keep 98.5% (strength: 0.25); the edit keeps 99.1% of held-out retain, 100.0% of "
        "plain text. Of 8 forget questions 6 were answered before and 2 are now, held-out phrasings and the model's "
        "own words among them (all teacher-forced)."
    ) in text
    assert "--gamma 0.03 --layers 1:25 --set seed=none --strength auto\n" in text
    by_hand = model_card(METADATA, LAYERS, selection=selection(None))
    assert "The strength was fixed by hand; the edit keeps 99.1% of held-out retain" in by_hand
    assert "auto" not in by_hand
    assert "99.1%" not in model_card(METADATA, LAYERS, selection=selection(None), other_weights="e" * 64)


def test_the_command_chooses_the_strength_again():
    assert options({"shrinkage": 0.3}, "subspace") == "--set shrinkage=0.3"
    assert options({"chosen": {"directions": 3.0}, "strength": 1.0}, "subspace") == ""  # it chooses by default
    assert options({"mu": 3.0, "chosen": {"directions": 3.0}}, "subspace") == "--set mu=3.0 --strength auto"


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


class Asked(Exception):
    """What the command would have run."""


@pytest.mark.thorough
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"choose": False},
        {"settings": SubspaceSettings(mu=3.0)},
        {"settings": SubspaceSettings(mu=3.0), "choose": True},
        {"settings": SubspaceSettings(sources=Sources(image=0.0), schedule="sequential", threshold=0.25)},
        {"keep": 0.9855, "write_damaged": True, "sources": ("text", "facts"), "quantise": "8bit"},
        {"retain": None, "sources": ("text",)},
        {"sources": ()},
        {"neighbours": "names.txt"},
        {"method": "kvw"},
        {"method": "kvw", "choose": False},
        {"method": "kvw", "settings": KvwSettings(seed=None, parity=True, retain_contrast=False)},
        {"method": "steering"},
        {"method": "steering", "choose": False},
        {"method": "steering", "settings": SteeringSettings(skipped=(2, 3), decoding=True, target="It's so:")},
        {"method": "conditional-kvw", "choose": False},
        {"method": "leace", "settings": LeaceSettings(rank=3, layers=(1, 2))},
        {"method": "idk-nll"},
        {"method": "memit-zero", "keep": 0.5},
        {"method": "npo", "settings": get_method("npo").read({"beta": 0.3, "epochs": 2, "lora.rank": 4})},
        {"method": "idk-dpo", "settings": get_method("idk-dpo").read({"refusals": ["No, sorry.", "I don't know."]})},
        {"method": "manu", "settings": get_method("manu").read({"parts": ["language"]})},
    ],
)
def test_the_command_pasted_asks_for_the_same_edit(tmp_path, monkeypatch, more):
    for name in ("FORGET", "RETAIN"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"question": "Who is {name}?", "answer": "{name} it is."}}\n')
    (tmp_path / "names.txt").write_text("Ada\nBert\n")
    monkeypatch.chdir(tmp_path)
    model = find_checkpoint("toy:vanilla")
    model = replace(model, value_matrices="mlp", template_options=(("a", False), ("b", "it's"), ("c", [1, "x"])))
    given = {"forget": Path("FORGET.jsonl"), "retain": Path("RETAIN.jsonl"), "out": Path("run"), **more}
    if "neighbours" in given:
        given["neighbours"] = Path(given["neighbours"])
    request = EraseRequest(model, **given)
    recorded = json.loads(json.dumps(asdict(request.settings) | {"steps": 7}))
    recorded |= {"chosen": {"share": 0.5}} if request.chooses else {}
    metadata = EditMetadata(
        method=request.method, settings=recorded, base_model=str(model), value_matrices=model.value_matrices
    )
    text = model_card(metadata, LAYERS, asked=AskedPart.model_validate_json(asked_part(request).model_dump_json()))
    command = next(line for line in text.splitlines() if line.startswith("kvw erase"))
    for word, file in (("FORGET", "FORGET.jsonl"), ("RETAIN", "RETAIN.jsonl"), ("NEIGHBOURS", "names.txt")):
        command = command.replace(f" {word}", f" {file}")

    def stop(request, *_):
        raise Asked(request)

    monkeypatch.setattr("kvw.runs.erase.erase", stop)
    with pytest.raises(Asked) as found:
        app(shlex.split(command)[1:], exit_on_error=False)
    (again,) = found.value.args
    assert again.chooses == request.chooses
    same = {"choose": None, "forget": [Path("FORGET.jsonl")]}
    if request.method == "steering":  # how many steps are its own setting
        same["settings"] = replace(request.settings, steps=7)
    assert replace(again, choose=None, command="") == replace(request, **same)


def test_what_the_command_cannot_say_is_said_beside_it():
    left = METADATA.model_copy(update={"method": "leace", "settings": {"rank": 3}})
    assert "asked for from Python: `kvw.runs.request.EraseRequest(choose=False)`" in model_card(left, LAYERS)
    assert "choose=False" not in model_card(METADATA, LAYERS)
    assert "What else the run was asked is not known" in model_card(METADATA, LAYERS)
    known = AskedPart(keep=0.98, retain=True, sources=list(SOURCES), neighbours=False, write_damaged=False)
    assert "What else the run was asked" not in model_card(METADATA, LAYERS, asked=known)


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
    command = f"erase MODEL --forget F --retain R --out run {options(recorded, 'kvw')}"
    _, bound, _ = app.parse_args(shlex.split(command), print_error=False, exit_on_error=False)
    assert bound.arguments["asked"].options.settings() == settings


EVIL = [
    "</script><script>alert(1)</script>",
    "x\n---\nlicense: evil\n---\n# Not a title",
    "`` ` ``` code",
    "```\n# Out of the block",
    "[click](http://example.org) ![](http://example.org/x.png)",
    "{{ 7 * 7 }}{% raw %}",
    "a | b\n| c | d |",
    f"{END}\n# After the end",
    "\u202eright to left\x1b[2J",
    "$(touch pwned); 'touch' \"x\" && `touch pwned`",
    "& &lt; <b>",
]


@pytest.mark.parametrize("text", EVIL)
def test_what_others_have_written_is_shown_and_never_read(tmp_path, text):
    evil = EditMetadata(
        method=text,
        settings={"gamma": text, text: [text], "layers": text},
        base_model=text,
        model_fingerprint=text,
        forget_digest=text,
        retain_digest=text,
        versions={text: text},
    )
    evil = evil.model_copy(update=dict.fromkeys(("method", "base_model", "forget_digest"), text))  # past its checks
    plain = evil.model_copy(update={"settings": {"gamma": 1.0}, "method": "kvw", "base_model": "plain"})
    for metadata, names in ((evil, [text]), (evil.model_copy(update={"method": "kvw"}), ["forget"])):
        found = model_card(metadata, LAYERS, scores={name: split(1, 0.5) for name in names}, other_weights="")
        card = load(found, tmp_path)
        assert card.data.to_dict() == load(model_card(plain, LAYERS), tmp_path).data.to_dict()
        html = MarkdownIt("gfm-like", {"linkify": False}).render(card.text)
        tags = set(re.findall(r"<(/?\w+)", re.sub(r"<!--.*?-->", "", html)))
        allowed = {"h1", "h2", "h3", "p", "code", "pre", "table", "thead", "tbody", "tr", "th", "td"}
        assert tags <= allowed | {f"/{tag}" for tag in allowed}, html
        assert html.count("<h1>") == 1
        assert html.count("<h2>") == 1
        assert html.count("<h3>") == 3
        assert html.count("<pre>") == 2
        assert found.count(END) == 1
        assert not any(mark in found for mark in ("{{", "{%", "\x1b", "\u202e"))
    command = next(line for line in found.splitlines() if line.startswith("kvw erase"))
    words = shlex.split(command)
    assert words[:2] == ["kvw", "erase"]
    assert words[3:9] == ["--forget", "FORGET", "--retain", "RETAIN", "--out", "run"]
    assert words[9:11] == ["--method", "kvw"]
    assert [words[place] for place in (11, 13)] == ["--gamma", "--layers"]
    assert len(words) == 15


def test_an_inverse_is_no_removal():
    text = model_card(EditMetadata(method="invert", amplifies=True, parents=(METADATA,)), LAYERS)
    assert "removed from this model" not in text
    assert "Knowledge was removed" not in text
    assert "kvw erase" not in text  # nothing that it was made with would make it again


def test_it_says_what_is_confidential():
    assert "They are confidential: do not publish them with this model." in model_card(METADATA, LAYERS)


def test_other_weights_have_no_scores():
    text = model_card(METADATA, LAYERS, scores={"forget": split(1, 0.125)}, other_weights="e" * 64)
    assert "→" not in text
    assert "Not known: the edit was made on other weights" in text
    assert f"`{'e' * 64}`" in text


def test_an_earlier_edit_has_no_scores_either_on_other_weights():
    first = model_card(METADATA, LAYERS, scores={"forget": split(1, 0.125)}, source="# A model\n\n1 → 2\n")
    second = model_card(METADATA, LAYERS, source=first, other_weights="e" * 64)
    assert (first.count("→"), second.count("→")) == (5, 1)
    assert "# A model\n\n1 → 2\n" in second
    assert second.count("### Scores before and after\n\nNot known: ") == 2
    assert second.count("### How to repeat it") == second.count(END) == 2
    assert model_card(METADATA, LAYERS, source=first).count("→") == 5
