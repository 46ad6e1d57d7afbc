"""Subspace weakening on several processes: the edit of one, up to rounding."""

from __future__ import annotations

import copy
import json
import os
from types import SimpleNamespace

import pytest
import torch
from tests import tiny_models
from tests.batches import text_batch
from tests.families import build_family, family_batch
from tests.methods.subspace.test_method import FORGET, RETAIN, THREE_SUBJECTS, VIEWS
from tests.processes.test_failures import people, program  # noqa: F401
from tests.several_processes import run_several

import kvw
from kvw import processes as exchange
from kvw.cli import main
from kvw.cli.launch import _join
from kvw.data import Example, prepare
from kvw.errors import UserError
from kvw.measuring import labelled
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.moment_passes import measure_tokens
from kvw.methods.subspace.method import subspace
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.models.finding import find_value_matrices
from kvw.processes import Processes, current, together

pytestmark = pytest.mark.thorough

SETTINGS = {
    "joint": {"layers": (0, 2), "matrices": "both"},
    "two passes": {"layers": (0, 2), "layers_per_pass": 2, "matrices": "both"},
    "sequential": {"layers": (0, 2), "schedule": "sequential", "path": "whole model", "matrices": "both"},
    "cross-validated": {"layers": (1, 1), "shrinkage": "cross-validated", "matrices": "both"},
}


def found():
    """Edits, bounds and tokens in plain values."""
    model, _ = tiny_models.build("llava")
    results, calls = {}, []
    labels = {"forget_labels": VIEWS, "retain_labels": THREE_SUBJECTS}
    for name, values in SETTINGS.items():
        settings, bounds = SubspaceSettings(**values), []

        def progress(*some):
            calls.append(some)

        edit = subspace(model, FORGET, RETAIN, settings, **labels, on_matrix=bounds.append, progress=progress)
        results[name] = plain(edit), [entry.eigenvalues for entry in bounds]
    experts = copy.deepcopy(build_family("qwen3_moe"))
    settings = SubspaceSettings(layers=(0, 1), min_tokens=2)
    edit = subspace(experts, [family_batch(experts, 2, 9, 1)], [family_batch(experts, 8, 9, 2)], settings)
    results["experts"] = plain(edit), edit.metadata.left_alone
    matrices = find_value_matrices(model)
    tokens = {key: vars(value) for key, value in measure_tokens(model, FORGET, matrices).items()}
    return results, tokens, len(calls)


def plain(edit):
    return {key: (value.patterns, value.filters, value.log_gates) for key, value in edit.directions.items()}


def found_together():
    _join()
    with together():
        return found()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    one = found()
    several = run_several(found_together, folder=tmp_path_factory.mktemp("several"))
    assert [ended.code for ended in several] == [0, 0], several
    return SimpleNamespace(one=one, several=[ended.result for ended in several])


def operators(directions):
    """T for each value matrix, in float64."""
    for patterns, filters, log_gates in directions.values():
        change = torch.expm1(log_gates.double())
        yield torch.eye(len(patterns)).double() + (patterns.double() * change) @ filters.double().T


@pytest.mark.parametrize("name", [*SETTINGS, "experts"])
def test_all_processes_have_the_edit_of_one(both, name):
    expected = both.one[0][name][0]
    assert sum(len(log_gates) for _, _, log_gates in expected.values()) > 0
    for several in both.several:
        directions = several[0][name][0]
        assert list(directions) == list(expected)
        for operator, other in zip(operators(directions), operators(expected), strict=True):
            torch.testing.assert_close(operator, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
    for key, parts in both.several[0][0][name][0].items():
        assert all(torch.equal(*pair) for pair in zip(parts, both.several[1][0][name][0][key], strict=True))


@pytest.mark.parametrize("name", list(SETTINGS))
def test_bounds_come_in_the_first_process_with_the_eigenvalues_of_one(both, name):
    first, second = (several[0][name][1] for several in both.several)
    assert second == []
    assert len(first) == len(both.one[0][name][1]) > 0
    for eigenvalues, expected in zip(first, both.one[0][name][1], strict=True):
        assert eigenvalues == pytest.approx(expected, rel=1e-5)


def test_experts_that_saw_too_little_are_the_same(both):
    assert both.one[0]["experts"][1]
    assert [several[0]["experts"][1] for several in both.several] == [both.one[0]["experts"][1]] * 2


def test_tokens_come_to_the_process_that_solves_their_matrix_in_the_order_of_the_examples(both):
    first, second = (several[1] for several in both.several)
    assert list(first) == list(both.one[1])[::2]
    assert list(second) == list(both.one[1])[1::2]
    for key, tokens in (first | second).items():
        for name, value in tokens.items():
            assert torch.equal(value, both.one[1][key][name])


def test_progress_is_told_in_the_first_process_only(both):
    assert [several[2] for several in both.several] == [both.one[2], 0]


def sums():
    _join()
    exchange.BLOCK = 5
    found = {}
    with together() as processes:
        values = torch.tensor([1e8, 1.0, -1e8])
        share = torch.full((3, 4), float(values[processes.rank]))
        for to in range(3):
            own = share.clone()
            processes.add(own, [0, 1, 2], to)
            found[to] = own
        own = torch.zeros(3, 4) if processes.rank == 1 else share.clone()
        processes.add(None if processes.rank == 2 else own, [0], 1)
        shared = processes.all_gather(processes.rank), processes.gather(str(processes.rank), 2)
        owners = [processes.owner(number) for number in range(4)]
    return found, own, shared, owners


def test_sums_are_formed_in_the_order_of_the_processes_wherever_they_go(tmp_path):
    ended = run_several(sums, folder=tmp_path, size=3)
    assert [process.code for process in ended] == [0, 0, 0], ended
    for rank, process in enumerate(ended):
        found, alone, (everyone, gathered), owners = process.result
        for to in range(3):
            # (1e8 + 1) - 1e8 is 0 in float32; in any other order of these it is 1.
            value = 0.0 if to == rank else [1e8, 1.0, -1e8][rank]
            assert torch.equal(found[to], torch.full((3, 4), value))
        assert rank == 2 or torch.equal(alone, torch.full((3, 4), 1e8))
        assert everyone == [0, 1, 2]
        assert gathered == (["0", "1", "2"] if rank == 2 else [])
        assert owners == [0, 1, 2, 0]


def test_a_process_alone_exchanges_nothing():
    alone, share = Processes(), torch.ones(2)
    alone.add(share, [0], 0)
    assert share.tolist() == [1, 1]
    assert (alone.all_gather("a"), alone.gather("a", 0), alone.owner(3)) == (["a"], ["a"], 0)


def refused():
    _join()
    refusals = []
    model, processor = tiny_models.build("llava")
    retain = [text_batch(1, 9, 3, seed) for seed in range(4)]
    unlabelled = {name: value for name, value in retain[1].items() if name != "labels"}
    silent = [batch | {"labels": torch.full_like(batch["labels"], -100)} for batch in retain]
    examples = prepare([Example("Who?", "Jody Vance" * (index + 1)) for index in range(3)], processor)
    different = LabelledBatches(examples[int(os.environ["RANK"]) :], processor, model)
    for forget in ([retain[0], unlabelled], silent, different):
        try:
            with together():
                subspace(model, forget, retain, SubspaceSettings(layers=(0, 1)))
        except UserError as error:
            refusals.append(str(error))
    return refusals


def test_mistakes_end_all_processes_with_their_message(tmp_path):
    several = run_several(refused, folder=tmp_path)
    for ended in several:
        assert ended.code == 0, ended.errors
        labels, silent, different = ended.result
        assert "has no 'labels'" in labels
        assert "in process 1 of 2" in labels or ended is several[1]
        assert "saw no token" in silent
        assert "different: batches" in different


def exhausted():
    _join()
    model, processor = tiny_models.build("llava")
    sets = []
    for words, count in (("Jody Vance", 6), ("Paris", 30)):
        examples = [Example("Who is it?" + " Now?" * (index % 7), f"{words} {index}") for index in range(count)]
        sets.append(LabelledBatches(prepare(examples, processor), processor, model, budget=60))
    assert [len(batches) > 1 for batches in sets] == [True, True]
    sizes = []

    def refuse(_, inputs):
        sizes.append(inputs[0].shape[0])
        if current().rank == 1 and sizes[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    settings = SubspaceSettings(layers=(0, 2), threshold=0.3)
    found = [plain(subspace(model, *sets, settings))]
    model.model.language_model.layers[1].mlp.down_proj.register_forward_pre_hook(refuse)
    with together():
        found.append(plain(subspace(model, *sets, settings)))
    return found, max(sizes)


def test_memory_that_runs_out_in_one_process_costs_no_more_than_rounding(tmp_path):
    several = run_several(exhausted, folder=tmp_path)
    for ended in several:
        assert ended.code == 0, ended.errors
        (one, halved), largest = ended.result
        assert largest > 1
        for operator, other in zip(operators(halved), operators(one), strict=True):
            torch.testing.assert_close(operator, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def failing_solver(*arguments):
    def solve(*_):
        if current().rank == 1:
            raise UserError("Nothing works here.", do="go elsewhere")
        return original(*_)

    from kvw.methods.subspace import solution

    original, solution.find_directions = solution.find_directions, solve
    program_with_small_batches(*arguments)


def program_with_small_batches(*arguments):
    labelled.token_budget = lambda device: 90
    program(*arguments)


def erase_arguments(saved, folder, out):
    sets = ["--forget", folder / "forget.jsonl", "--retain", folder / "retain.jsonl", "--max-new-tokens", "3"]
    sets += ["--strength", "1"]  # to come to one choice has a test of its own
    return ["erase", saved["llava"], *sets, "--set", "matrices=both", "--write-damaged", "--out", folder / out]


def test_an_error_while_one_process_solves_ends_all_with_one_message(saved, people, tmp_path):  # noqa: F811
    first, second = run_several(failing_solver, *erase_arguments(saved, people, "run"), folder=tmp_path / "logs")
    assert (first.code, second.code) == (2, 2), first.errors
    assert first.errors.count("error ") == 1
    assert "Nothing works here" in first.errors
    assert "in process 1 of 2" in first.errors
    assert "Traceback" not in first.errors + second.errors
    assert not (people / "run").exists()


def program_that_is_asked_everyday_questions(*arguments):
    """As if the model wrote English, with few questions and sentences."""
    from kvw.retain import sources
    from kvw.runs import solving

    solving.KNOWS_ENGLISH = float("inf")
    questions, texts = sources.everyday_questions()[:6], sources.text_examples()[:6]
    sources.everyday_questions, sources.text_examples = (lambda: questions), (lambda: texts)
    program_with_small_batches(*arguments)


def test_all_processes_gather_what_must_stay_and_come_to_one_choice(saved, people):  # noqa: F811
    arguments = ["erase", saved["llava"], "--forget", people / "forget.jsonl", "--max-new-tokens", "1", "--no-model"]
    arguments += ["--retain-sources", "everyday,text", "--write-damaged", "--out"]
    records = []
    for size in (1, 2):
        out = people / str(size)
        ended = run_several(
            program_that_is_asked_everyday_questions, *arguments, out, folder=people / f"logs {size}", size=size
        )
        assert [process.code for process in ended] == [0] * size, ended
        assert [(process.out, process.errors) for process in ended[1:]] == [("", "")] * (size - 1)
        assert ended[0].errors.count("done choosing the strength") == 1
        records.append(json.loads((out / "run.json").read_text()))
    one, two = (record["selection"] for record in records)
    assert [part["name"] for part in two["sources"]] == ["everyday", "text"]
    assert two["sources"] == one["sources"]
    assert [part["dose"] for part in two["candidates"]] == [part["dose"] for part in one["candidates"]]
    assert [part["chosen"] for part in two["candidates"]] == [part["chosen"] for part in one["candidates"]]


def test_the_command_line_program_comes_to_the_same_scores_and_bounds(saved, people, monkeypatch):  # noqa: F811
    monkeypatch.setattr(labelled, "token_budget", lambda device: 90)
    with pytest.raises(SystemExit):
        main([str(argument) for argument in erase_arguments(saved, people, "one")])
    monkeypatch.setenv("KVW_CACHE", str(people / "cache"))
    arguments = erase_arguments(saved, people, "two")
    first, second = run_several(program_with_small_batches, *arguments, folder=people / "logs")
    assert (first.code, second.code) == (0, 0), first.errors + second.errors
    one, two = (json.loads((people / run / "run.json").read_text()) for run in ("one", "two"))
    assert two["costs"]["processes"] == 2
    answers = [(people / run / "samples.jsonl").read_text().splitlines() for run in ("one", "two")]
    assert len(answers[0]) == 16
    for line, expected in zip(*(map(json.loads, lines) for lines in answers), strict=True):
        assert line["original"] == expected["original"]
        assert line["unlearned"]["prediction"] == expected["unlearned"]["prediction"]
    assert len(two["distortion_bounds"]) == len(one["distortion_bounds"]) == 7
    for entry, expected in zip(two["distortion_bounds"], one["distortion_bounds"], strict=True):
        assert entry["eigenvalues"] == pytest.approx(expected["eigenvalues"], rel=1e-5)
    edits = [plain(kvw.load_edit(people / run / "edit.safetensors")) for run in ("one", "two")]
    for operator, other in zip(*map(operators, edits), strict=True):
        torch.testing.assert_close(operator, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))
