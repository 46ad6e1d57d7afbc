"""Interrupted evaluations go on where they stopped, and come to what uninterrupted ones come to."""

from __future__ import annotations

import json

import pytest
from tests import tiny_models
from tests.program import run
from tests.servers import fake_server

import kvw
from kvw.data import Example
from kvw.evaluation.endpoint import EndpointModel
from kvw.evaluation.evaluation import evaluate, evaluate_endpoint
from kvw.evaluation.journal import ANSWERS, SCORES, Journal
from kvw.progress import SILENT
from kvw.runs.evaluate import evaluate as run_evaluate

pytestmark = pytest.mark.thorough

A, B = (tiny_models.noise_png(seed, (40, 30)) for seed in (1, 2))
EXAMPLES = [
    *(
        Example(f"Who is {'very ' * index}old?", f"Number {index}", (A,) if index % 2 else (), f"f:{index}")
        for index in range(9)
    ),
    Example("Who is very old?", "Somebody else", (A,)),
    Example("Who is very old?", "Number 1", (B,)),
]
BUDGET = 120
FINGERPRINT = {"model": "tiny", "data": "examples"}


class Stop(Exception):
    """Raised in the middle of a run."""


@pytest.fixture
def generated(monkeypatch):
    """The number of prompts in each call of generate()."""
    from transformers import GenerationMixin

    sizes, plain = [], GenerationMixin.generate

    def generate(self, **inputs):
        sizes.append(len(inputs["input_ids"]))
        return plain(self, **inputs)

    monkeypatch.setattr(GenerationMixin, "generate", generate)
    return sizes


def stop_after(done):
    def progress(now, total):
        if now >= done:
            raise Stop

    return progress


def evaluated(model, processor, fingerprint=FINGERPRINT, **options):
    with Journal(fingerprint) as journal:
        return evaluate(model, processor, {"f": EXAMPLES}, max_new_tokens=6, budget=BUDGET, journal=journal, **options)


def test_a_resumed_run_generates_the_rest_and_equals_an_uninterrupted_one(llava, llava_processor, generated):
    whole = evaluate(llava, llava_processor, {"f": EXAMPLES}, max_new_tokens=6, budget=BUDGET)
    batches = list(generated)
    assert sum(batches) == 10
    assert len(batches) > 3
    generated.clear()
    with pytest.raises(Stop):
        evaluated(llava, llava_processor, progress=stop_after(sum(batches[:2])))
    assert generated == batches[:2]
    generated.clear()
    calls = []
    resumed = evaluated(llava, llava_processor, progress=lambda *call: calls.append(call))
    assert generated == batches[2:]
    assert resumed == whole
    assert calls[-1] == (22, 22)
    generated.clear()
    assert evaluated(llava, llava_processor) == whole
    assert generated == []
    assert evaluated(llava, llava_processor, {**FINGERPRINT, "model": "another"}) == whole
    assert generated == batches


def test_scores_are_kept_too(llava, llava_processor):
    passes = []
    llava.register_forward_pre_hook(lambda *_: passes.append(1))
    with pytest.raises(Stop):
        evaluated(llava, llava_processor, progress=stop_after(len(EXAMPLES) + 4))
    before = len(passes)
    resumed = evaluated(llava, llava_processor)
    missing = len(passes) - before
    passes.clear()
    assert resumed == evaluated(llava, llava_processor)
    assert passes == []
    assert evaluated(llava, llava_processor, {"model": "another"}) == resumed
    assert 0 < missing < len(passes)


def test_a_batch_of_which_a_part_is_missing_runs_as_a_whole(llava, llava_processor, generated):
    whole = evaluated(llava, llava_processor)
    batches = list(generated)
    generated.clear()
    path = Journal(FINGERPRINT).path
    lines = path.read_text().splitlines()
    largest = batches.index(max(batches))
    gone = sum(batches[:largest]) + 1
    assert '"answer"' in lines[1 + gone]
    path.write_text("\n".join(lines[: 1 + gone] + lines[2 + gone :]) + "\n")
    assert evaluated(llava, llava_processor) == whole
    assert generated == [batches[largest]]


@pytest.mark.parametrize(
    "damage", ["cut", "cut in a character", "zeros", "another type", "another answer", "half a line in the middle"]
)
def test_damaged_lines_are_worked_out_again(damage, caplog):
    with Journal(FINGERPRINT) as journal:
        kept = journal.kept(ANSWERS, str)
        kept.add({("Q1", ()): "erste Antwort", ("Q2", ("image",)): "größere"})
        kept.add({("Q3", ()): "dritte"})
    content = journal.path.read_bytes()
    assert content.endswith(b"\n")
    *first, last, _ = content.split(b"\n")
    damaged = {
        "cut": content[: -len(last) // 2],
        "cut in a character": content[:-3],
        "zeros": content + bytes(100),
        "another type": content.replace(b'"dritte"', b"17"),
        "another answer": content.replace(b'"dritte"', b'"vierte"'),
        "half a line in the middle": b"\n".join([*first, last[:20], b'{"kind": "answer"}', b"[]", b"null"]),
    }[damage]
    journal.path.write_bytes(damaged)
    with Journal(FINGERPRINT) as again:
        assert f"{journal.path} is damaged" in caplog.text
        kept = again.kept(ANSWERS, str)
        assert kept.find(("Q1", ())) == "erste Antwort"
        assert kept.find(("Q2", ("image",))) == "größere"
        assert kept.find(("Q2", ())) is None
        assert kept.find(("Q3", ())) == ("dritte" if damage == "zeros" else None)
        kept.add({("Q4", ()): "after the damage"})
    caplog.clear()
    with Journal(FINGERPRINT) as last_time:
        assert caplog.text == ""
        kept = last_time.kept(ANSWERS, str)
        assert kept.find(("Q1", ())) == "erste Antwort"
        assert kept.find(("Q4", ())) == "after the damage"


@pytest.mark.parametrize("bit", [4, *(pytest.param(bit, marks=pytest.mark.slow) for bit in (1, 32, 128))])
def test_every_flipped_byte_is_found_and_told(bit, caplog):
    results = {(f"Q{number}", ()): f"answer {number}" for number in range(3)}
    with Journal(FINGERPRINT) as journal:
        journal.kept(ANSWERS, str).add(results)
    content = journal.path.read_bytes()
    for place in range(1, len(content)):  # an empty line in front means nothing
        caplog.clear()
        journal.path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
        kept = Journal(FINGERPRINT).kept(ANSWERS, str)
        assert f"{journal.path} is damaged" in caplog.text
        found = {key: kept.find(key) for key in results}
        # A line break that is lost or one more takes a line or two with it.
        assert 1 <= sum(answer is None for answer in found.values()) <= 2
        assert all(answer in (None, results[key]) for key, answer in found.items())


def test_results_of_other_kinds_and_fingerprints_are_not_mixed_up():
    with Journal(FINGERPRINT) as journal:
        journal.kept(ANSWERS, str).add({("Q", ()): "text"})
        assert journal.count(ANSWERS) == 1
        assert journal.count(SCORES) == 0
        assert journal.kept(SCORES, str).find(("Q", ())) is None
    assert Journal({**FINGERPRINT, "data": "others"}).count(ANSWERS) == 0
    nothing = Journal(None)
    nothing.kept(ANSWERS, str).add({("Q", ()): "text"})
    assert nothing.path is None
    journal = Journal(FINGERPRINT)
    journal.discard()
    assert not journal.path.exists()
    assert journal.count(ANSWERS) == Journal(FINGERPRINT).count(ANSWERS) == 0


def test_infinite_scores_come_back():
    key = ("Q", ())
    with Journal(FINGERPRINT) as journal:
        journal.kept(SCORES, tuple[float, ...]).add({key: (float("-inf"), 0.1 + 0.2)})
    assert Journal(FINGERPRINT).kept(SCORES, tuple[float, ...]).find(key) == (float("-inf"), 0.1 + 0.2)


def test_lines_reach_the_disk_in_steps(monkeypatch):
    synced = []
    monkeypatch.setattr("kvw.evaluation.journal.os.fsync", lambda handle: synced.append(handle))
    with Journal(FINGERPRINT) as journal:
        kept = journal.kept(ANSWERS, str)
        for index in range(130):
            kept.add({(f"Q{index}", ()): "text"})
            # Whatever happens to this process, another one can read it by now.
            assert len(journal.path.read_text().splitlines()) == index + 2
        assert len(synced) == 2
    assert len(synced) == 3


def test_an_evaluation_goes_on_without_a_place_to_keep_answers(llava, llava_processor, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "file"))
    whole = evaluate(llava, llava_processor, {"f": EXAMPLES}, max_new_tokens=6, budget=BUDGET)
    assert evaluated(llava, llava_processor) == whole
    assert [record.message.split(":")[0] for record in caplog.records] == ["answers could not be kept for the next run"]


@pytest.fixture
def people(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"Who is {'very ' * index}old?", "answer": f"Number {index}"} for index in range(8)]
    (tmp_path / "people.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def test_an_interrupted_command_goes_on(people, saved, monkeypatch, capsys, generated):
    monkeypatch.setattr("kvw.measuring.batch_sizing.TOKENS_ON_CPU", 40)
    more = ("--data", "people.jsonl", "--max-new-tokens", 3)
    assert run("evaluate", saved["llava"], *more, "--samples", "whole.jsonl") == 0
    assert "an earlier run" not in capsys.readouterr().err
    batches = list(generated)
    generated.clear()
    monkeypatch.setenv("KVW_CACHE", str(people / "another cache"))

    from transformers import GenerationMixin

    counted = GenerationMixin.generate

    def interrupted(self, **inputs):
        if len(generated) == 3:
            raise KeyboardInterrupt
        return counted(self, **inputs)

    with monkeypatch.context() as patch:
        patch.setattr(GenerationMixin, "generate", interrupted)
        assert run("evaluate", saved["llava"], *more, "--samples", "resumed.jsonl") == 130
    assert "goes on from what was kept" in " ".join(capsys.readouterr().err.split())
    assert not (people / "resumed.jsonl").exists()
    generated.clear()
    assert run("evaluate", saved["llava"], *more, "--samples", "resumed.jsonl") == 0
    assert generated == batches[3:]
    assert f"{sum(batches[:3])} answers are there from an earlier run" in " ".join(capsys.readouterr().err.split())
    assert (people / "resumed.jsonl").read_bytes() == (people / "whole.jsonl").read_bytes()


def test_only_the_same_model_edit_data_and_settings_go_on(people, saved, generated):
    arguments = ("evaluate", saved["llava"], "--data", "people.jsonl", "--max-new-tokens")
    assert run(*arguments, 3) == 0
    assert sum(generated) == 8
    kvw = ("--method", "kvw", "--no-retain-contrast")
    erase = ("erase", saved["llava"], "--forget", "people.jsonl", *kvw, "--max-new-tokens", 1)
    assert run(*erase, "--gamma", 1, "--out", "one") == 0
    assert run("edit", "scale", "one/edit.safetensors", "--strength", 0.5, "--out", "two.safetensors") == 0
    for again, more in (
        (0, ()),
        (8, ("--edit", "one/edit.safetensors")),
        (0, ("--edit", "one/edit.safetensors")),
        (8, ("--edit", "two.safetensors")),
    ):
        generated.clear()
        assert run(*arguments, 3, *more) == 0
        assert sum(generated) == again, more
    generated.clear()
    assert run(*arguments, 4) == 0
    assert run("evaluate", saved["qwen2_vl"], *arguments[2:], 3) == 0
    assert run("evaluate", "one/model", *arguments[2:], 3) == 0
    assert sum(generated) == 24
    generated.clear()
    rows = (people / "people.jsonl").read_text().splitlines()
    (people / "people.jsonl").write_text("\n".join(reversed(rows)))
    assert run(*arguments, 3) == 0
    assert sum(generated) == 0
    (people / "people.jsonl").write_text("\n".join(rows[1:]))
    assert run(*arguments, 3) == 0
    assert sum(generated) == 7


def test_the_original_and_the_edited_model_do_not_share_answers(people, saved, generated):
    arguments = ("--forget", "people.jsonl", "--no-retain-contrast", "--max-new-tokens", 1, "--out", "run")
    assert run("erase", saved["llava"], "--method", "kvw", *arguments, "--gamma", 3) == 0
    edit = kvw.load_edit(people / "run" / "edit.safetensors")
    checkpoint = kvw.find_checkpoint(str(saved["llava"]))
    first, second = (
        run_evaluate(checkpoint, people / "people.jsonl", SILENT, edit=edit, max_new_tokens=3) for _ in range(2)
    )
    assert first == second
    original, unlearned = (first[name].summaries["people"].probability for name in ("original", "unlearned"))
    assert original != unlearned


def test_a_resumed_run_asks_a_server_the_rest():
    with fake_server() as server:
        model = EndpointModel(server.url, in_flight=1)
        with Journal(FINGERPRINT) as journal, pytest.raises(Stop):
            evaluate_endpoint(model, {"f": EXAMPLES}, journal=journal, progress=stop_after(4))
        with Journal(FINGERPRINT) as journal:
            there = journal.count(ANSWERS)
            assert 0 < there < 10
            assert len(server.questions) <= there + 2  # those that were in flight, and none of those that waited
            server.requests.clear()
            calls = []
            found = evaluate_endpoint(
                EndpointModel(server.url), {"f": EXAMPLES}, journal=journal, progress=lambda *call: calls.append(call)
            )
        assert len(server.questions) == 10 - there
        assert calls[-1] == (11, 11)
        assert [record.prediction for record in found.records] == [f"answer to {e.question}" for e in EXAMPLES]


def test_answers_of_a_server_are_kept_until_all_are_there(people, capsys):
    with fake_server() as server:
        server.answer = lambda question, before: (400, "no") if "very very old" in question else "Number 0"
        arguments = ("evaluate", "--endpoint", server.url, "--data", "people.jsonl")
        assert run(*arguments, "--json") == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)["model"]["people"]["failed"] == 6
        assert "6 examples failed, the first one people.jsonl:3: the server gave no answer: HTTP 400: no" in " ".join(
            printed.err.split()
        )
        server.requests.clear()
        server.answer = lambda question, before: "Number 5"
        assert run(*arguments) == 0
        assert len(server.questions) == 6
        assert "if the server has another model by now, delete" in " ".join(capsys.readouterr().err.split())
        server.requests.clear()
        assert run(*arguments) == 0
        assert len(server.questions) == 8
        assert "an earlier run" not in capsys.readouterr().err


def test_another_model_url_or_length_asks_a_server_again(people):
    with fake_server() as server, fake_server() as other:
        for one in (server, other):
            one.models = ["first", "second"]
            one.answer = lambda question, before: (400, "no") if question == "Who is old?" else "Number 1"
        for url, model, length in (
            (server.url, "first", 3),
            (server.url, "second", 3),
            (server.url, "first", 4),
            (other.url, "first", 3),
        ):
            for asked in (8, 1):
                server.requests.clear()
                other.requests.clear()
                more = ("--served-model", model, "--max-new-tokens", length, "--data", "people.jsonl")
                assert run("evaluate", "--endpoint", url, *more) == 0
                assert len(server.questions + other.questions) == asked


def test_a_file_of_samples_is_not_replaced(people, capsys):
    (people / "samples.jsonl").write_text("")
    with fake_server() as server:
        assert run("evaluate", "--endpoint", server.url, "--data", "people.jsonl", "--samples", "samples.jsonl") == 2
    assert "samples.jsonl exists" in capsys.readouterr().err
    assert server.requests == []
    assert (people / "samples.jsonl").read_text() == ""
