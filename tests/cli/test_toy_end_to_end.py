"""The main job on the shipped toy model, from files to a checkpoint that plain transformers answers with."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from safetensors.torch import load_file

import kvw
from kvw.cli import main
from kvw.toy import checkpoint

PLAIN = """
import json, sys
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
folder, lines = sys.argv[1], [json.loads(line) for line in open(sys.argv[2])]
model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
for line in lines:
    content = [{"type": "image"}, {"type": "text", "text": line["question"]}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    image = Image.open(sys.argv[3] + "/" + line["image"])
    inputs = processor(text=[prompt], images=[image], return_tensors="pt")
    produced = model.generate(**inputs, max_new_tokens=16, do_sample=False)
    print(processor.decode(produced[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True).strip())
assert "kvw" not in sys.modules
"""


@pytest.mark.thorough
def test_four_people_are_weakened_and_plain_transformers_answers(world, tmp_path, capsys):
    run, retain = tmp_path / "run", world / "retain.jsonl"
    arguments = ["erase", "toy:vanilla", "--forget", world / "forget.jsonl", "--retain", retain]
    arguments += ["--method", "kvw", "--schedule", "one-shot", "--layers", "0:5", "--gamma", "0.2", "--keep", "0.65"]
    arguments += ["--out", run, "--eval-limit", "24"]
    arguments += ["--eval", f"unused={world / 'unused.jsonl'}", "--max-new-tokens", "16", "--json"]
    assert run_program(arguments) == 0
    record = json.loads(capsys.readouterr().out)
    scores = {
        name: (split["original"]["exact"], split["unlearned"]["exact"]) for name, split in record["splits"].items()
    }
    assert all(before >= 0.97 for before, _ in scores.values())
    # What KVW reaches on this model at this strength (docs/results.md), with room for rounding.
    assert scores["forget"][1] <= 0.75
    assert scores["retain"][1] >= 0.75
    assert scores["unused"][1] >= 0.75
    assert scores["forget"][1] < scores["retain"][1] - 0.1

    report = (run / "report.html").read_text()
    answers = record["splits"]["forget"]["answers"]
    assert f"Forgot {answers['lost']} of {answers['original']['correct']}" in report
    assert "data:image/jpeg;base64" in report  # people of the toy are made up
    assert len(report) < 2**20
    assert record["splits"]["unused"]["seen"] == {"used": 0, "judged": 0, "about_forgotten": 0, "new_subjects": 24}
    assert record["splits"]["forget"]["seen"]["about_forgotten"] == 24
    assert record["splits"]["forget"]["seen"]["used"] > 12

    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    samples = [sample for sample in samples if sample["split"] == "retain"][:6]
    rows = {f"retain.jsonl:{row['id']}": row for row in map(json.loads, retain.read_text().splitlines())}
    asked = tmp_path / "asked.jsonl"
    asked.write_text("\n".join(json.dumps(rows[sample["identifier"]]) for sample in samples))
    found = subprocess.run(
        [sys.executable, "-c", PLAIN, run / "model", asked, world], capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines() == [sample["unlearned"]["prediction"] for sample in samples]

    # The written model is the source but for the value matrices of the edit.
    before = load_file(checkpoint("vanilla") / "model.safetensors")
    after = load_file(run / "model" / "model.safetensors")
    changed = {name for name in before if not (before[name] == after[name]).all()}
    layers = {key.layer for key in kvw.load_edit(run / "edit.safetensors").widths}
    assert changed == {f"language_model.model.layers.{layer}.mlp.down_proj.weight" for layer in layers}
    assert layers == set(range(6))


def run_program(arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code
