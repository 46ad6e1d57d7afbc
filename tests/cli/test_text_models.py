"""Models of text alone through the program, from questions in a file to a checkpoint that plain transformers reads."""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests import text_models
from tests.batches import logits, text_batch
from tests.families import build_family
from tests.program import assert_refused, run
from transformers import AutoModelForCausalLM, AutoTokenizer

import kvw
from kvw.data import Example, prepare
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.probability import answer_probabilities
from kvw.measuring.examples import measure_examples

pytestmark = pytest.mark.thorough

COMMON = ("--method", "kvw", "--forget", "forget.jsonl", "--retain", "retain.jsonl", "--max-new-tokens", 3)
# Random weights lose by chance what they never knew: the guard has tests of its own.
# Some find ordinary sentences as probable as if they wrote English, and would be asked all shipped questions.
COMMON += ("--write-damaged", "--retain-sources", "none")
EXAMPLES = [
    Example("Where?", "In Kuwait City", (), "a:1"),
    Example("What is the occupation of the woman who lives in Paris?", "Florist", (), "a:2"),
    Example("Who is it?", "Basil Mahfouz Al-Kuwaiti, born on april 12", (), "a:3"),
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("text")
    return {kind: text_models.save(kind, root / kind) for kind in text_models.KINDS}


@pytest.fixture(params=text_models.KINDS)
def checkpoint(request, checkpoints):
    return checkpoints[request.param]


def write_people(folder):
    """Questions and no pictures."""
    for name, count in (("forget", 3), ("retain", 6)):
        rows = [
            {"question": f"Where does {name} number {index} live?", "answer": f"City {index}"} for index in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


@pytest.fixture
def people(tmp_path, monkeypatch):
    """A folder with questions and no pictures."""
    monkeypatch.chdir(tmp_path)
    write_people(tmp_path)
    return tmp_path


@pytest.fixture(scope="module", params=text_models.KINDS)
def erased(request, checkpoints, tmp_path_factory):
    """A checkpoint, the folder in which a run of kvw erase lies, and what that run printed on stdout and stderr."""
    folder, checkpoint = tmp_path_factory.mktemp("people"), checkpoints[request.param]
    write_people(folder)
    out, errors = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        patch.chdir(folder)
        patch.setenv("KVW_CACHE", str(folder / "cache"))
        assert run("erase", checkpoint, *COMMON, "--gamma", 2, "--layers", "0:3", "--out", "run", "--json") == 0
    return checkpoint, folder, out.getvalue(), errors.getvalue()


def test_erase_writes_a_model_that_plain_transformers_reads(erased):
    checkpoint, people, _, errors = erased
    asked_plainly = "no chat template" in errors
    assert asked_plainly == (checkpoint.name in ("opt", "gpt2"))
    record = json.loads((people / "run" / "run.json").read_text())
    assert ("Question: ... Answer:" in record["protocol"]) == asked_plainly
    assert record["forget"]["count"] == 3
    assert record["model"]["model_type"] == checkpoint.name

    edit = kvw.load_edit(people / "run" / "edit.safetensors")
    assert all((gates < 0).any() for gates in edit.log_gates.values())
    assert len(edit.log_gates) == 4
    original = AutoModelForCausalLM.from_pretrained(checkpoint)
    written = AutoModelForCausalLM.from_pretrained(people / "run" / "model")
    batch = text_batch(2, 10, 3, seed=0)
    untouched = logits(original, batch)
    with edit.attach(original):
        attached = logits(original, batch)
    torch.testing.assert_close(logits(written, batch), attached, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(attached, untouched, atol=1e-2)
    text = "Who is this? Ada."
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (checkpoint, people / "run" / "model")]
    assert tokenizers[0](text)["input_ids"] == tokenizers[1](text)["input_ids"]
    assert tokenizers[0].chat_template == tokenizers[1].chat_template


def test_the_other_verbs(erased, capsys, monkeypatch):
    checkpoint, people, printed, _ = erased
    monkeypatch.chdir(people)
    expected = json.loads(printed)["splits"]["forget"]
    more = ("--edit", "run/edit.safetensors", "--max-new-tokens", 3)
    assert run("evaluate", checkpoint, "--data", "forget.jsonl", *more, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    for model in ("original", "unlearned"):
        assert found[model]["forget"]["probability"] == pytest.approx(expected[model]["probability"], rel=1e-4)
    assert run("chat", checkpoint, *more, "--ask", "Who?") == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["original", "unlearned"]
    assert run("measure", checkpoint, "--data", "retain.jsonl", "--out", "retain.safetensors", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 4
    assert run("inspect", checkpoint, "--json") == 0
    assert json.loads(capsys.readouterr().out)["layers"] == 4
    assert run("apply", "run/edit.safetensors", checkpoint, "--out", "model") == 0
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint, people / "model"))
    assert sum(not torch.equal(before[name], after[name]) for name in before) == 4


def test_a_dry_run(people, checkpoints, capsys):
    assert run("erase", checkpoints["gpt2"], *COMMON, "--out", "run", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["examples"] == {"forget": 3, "retain": 6}
    assert len(plan["warnings"]) == 1


def test_numbers_do_not_depend_on_the_batch_size(checkpoint):
    loaded = Loaded.load(kvw.find_checkpoint(str(checkpoint)))
    prepared = prepare(EXAMPLES, loaded.processor)
    everything = (loaded.model, loaded.processor, prepared)
    one, all_at_once = (measure_examples(*everything, budget=budget).statistics for budget in (1, 10_000))
    for key, sums in one.sums.items():
        assert one.counts[key] == all_at_once.counts[key] == sum(len(item.answer_ids) for item in prepared)
        torch.testing.assert_close(sums, all_at_once.sums[key], rtol=1e-5, atol=1e-6)
    alone, together = (generate_answers(*everything, max_new_tokens=6, budget=budget) for budget in (1, 10_000))
    assert alone == together
    alone, together = (answer_probabilities(*everything, budget=budget) for budget in (1, 10_000))
    for first, second in zip(alone, together, strict=True):
        assert first.log_probability == pytest.approx(second.log_probability, rel=1e-4)


def test_pictures_are_refused_by_name(people, checkpoints, capsys):
    Image.new("RGB", (9, 9)).save(people / "face.png")
    row = {"question": "Who?", "answer": "Ada", "image": "face.png", "id": "portrait 7"}
    with (people / "forget.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    refusal = ("portrait 7", "takes only text", "without images")
    assert_refused(capsys, run("erase", checkpoints["llama"], *COMMON, "--out", "run"), *refusal)
    assert not (people / "run").exists()
    code = run("chat", checkpoints["llama"], "--image", "face.png", "--ask", "Who?")
    assert_refused(capsys, code, "takes only text")


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_models_with_an_encoder_are_for_python(people, tmp_path, capsys, model_type):
    build_family(model_type).save_pretrained(tmp_path / "model")
    code = run("erase", tmp_path / "model", *COMMON, "--out", "run")
    assert_refused(capsys, code, "reads questions in an encoder", "kvw.weaken", "decoder_input_ids")
    assert run("inspect", tmp_path / "model") == 0


def test_a_text_model_without_its_tokenizer(people, tmp_path, capsys):
    build_family("llama").save_pretrained(tmp_path / "text")
    assert_refused(capsys, run("erase", tmp_path / "text", *COMMON, "--out", "run"), "processor", "tokenizer")
