"""Errors, lost processes and silence: the program on two processes as a user meets it."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests import tiny_models
from tests.batches import text_batch
from tests.several_processes import run_several

import kvw
from kvw.cache import cache_directory
from kvw.cli import launch, main
from kvw.errors import LostProcess, UserError
from kvw.measuring import examples
from kvw.measuring.salt import SALT
from kvw.measuring.statistics import Statistics
from kvw.models.placement import find_device
from kvw.models.value_matrix import MatrixKey
from kvw.processes import Processes, current, together

pytestmark = pytest.mark.thorough


@pytest.fixture
def people(tmp_path):
    """A forget set and a retain set, half of them with images."""
    for name, count in (("forget", 4), ("retain", 12)):
        rows = []
        for index in range(count):
            Image.new("RGB", (24 + index, 20), (20 * index, 80, 120)).save(tmp_path / f"{name}-{index}.png")
            row = {"question": f"Who is person {index}?", "answer": f"{name.title()} Number {index}"}
            rows.append(row | ({"image": f"{name}-{index}.png"} if index % 2 else {}))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def program(*arguments):
    """``python -m kvw`` with small batches."""
    examples.token_budget = lambda device: 40
    launch.SECONDS_BEFORE_LEAVING = 0.0  # it is for launchers, and there is none here
    warnings.filterwarnings("ignore", message="Cyclopts application invoked without tokens")
    sys.argv = ["kvw", *map(str, arguments)]
    runpy.run_module("kvw", run_name="__main__")


def program_that_writes_in_the_first_process(*arguments):
    if os.environ["RANK"] != "0":
        tempfile.mkstemp = tempfile.mkdtemp = None  # every file and directory begins with one of these
    program(*arguments)


def measure_arguments(saved, people, out="retain.safetensors"):
    return ["measure", saved["llava"], "--data", people / "retain.jsonl", "--out", people / out]


def test_the_command_line_program_gives_the_files_of_one_process(saved, people, monkeypatch):
    monkeypatch.setattr(examples, "token_budget", lambda device: 40)
    arguments = ["erase", str(saved["llava"]), "--method", "kvw", "--forget", str(people / "forget.jsonl")]
    arguments += ["--retain", str(people / "retain.jsonl"), "--max-new-tokens", "3", "--gamma", "0.8"]
    arguments.append("--write-damaged")  # random weights lose by chance what they never knew
    with pytest.raises(SystemExit):
        main([*arguments, "--out", str(people / "one")])
    (people / "cache").mkdir()
    shutil.copy(cache_directory() / SALT, people / "cache")  # the same machine
    monkeypatch.setenv("KVW_CACHE", str(people / "cache"))
    arguments += ["--out", people / "two"]
    first, second = run_several(program_that_writes_in_the_first_process, *arguments, folder=people / "logs")
    assert (first.code, second.code) == (0, 0), second.errors
    assert "done weakening" in first.errors
    assert "before and after" in first.out
    assert (second.out, second.errors) == ("", "")

    for name in ("edit.safetensors", "model/model.safetensors"):
        one, two = (load_file(people / run / name) for run in ("one", "two"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert (people / "one/samples.jsonl").read_text() == (people / "two/samples.jsonl").read_text()
    one, two = (json.loads((people / run / "run.json").read_text()) for run in ("one", "two"))
    assert [name for name in one if one[name] != two[name]] == ["finished", "nonce", "costs"]
    assert (one["costs"]["processes"], two["costs"]["processes"]) == (1, 2)
    assert sorted(path.name for path in (people / "two").iterdir()) == sorted(
        path.name for path in (people / "one").iterdir()
    )


def test_scores_are_written_once_and_are_those_of_one_process(saved, people):
    edit = kvw.GateEdit({MatrixKey(layer): torch.full((80,), -0.7) for layer in (1, 2)})
    edit.save(people / "edit.safetensors")
    arguments = ["evaluate", saved["llava"], "--data", people / "retain.jsonl", "--edit", people / "edit.safetensors"]
    arguments = [str(argument) for argument in [*arguments, "--max-new-tokens", 3, "--samples"]]
    with pytest.raises(SystemExit):
        main([*arguments, str(people / "one.jsonl")])
    arguments.append(str(people / "two.jsonl"))
    first, second = run_several(program_that_writes_in_the_first_process, *arguments, folder=people / "logs")
    assert (first.code, second.code) == (0, 0), second.errors
    assert (second.out, second.errors) == ("", "")
    assert "unlearned" in first.out
    assert (people / "one.jsonl").read_text() == (people / "two.jsonl").read_text()


def test_each_process_of_a_machine_takes_an_accelerator_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 3)  # set when the processes join
    assert find_device(None) == torch.device("cuda:3")


def test_one_unreadable_image_ends_all_processes_with_one_message(saved, people):
    # The header is fine, so nobody but the process that needs the image finds out.
    (people / "retain-1.png").write_bytes((people / "retain-1.png").read_bytes()[:60])
    first, second = run_several(program, *measure_arguments(saved, people), folder=people / "logs")
    assert (first.code, second.code) == (2, 2)
    assert first.errors.count("error ") == 1
    assert "retain.jsonl:2: an image cannot be read" in first.errors
    assert "in process 1 of 2" in first.errors
    assert "Traceback" not in first.errors
    assert second.errors == ""
    assert not (people / "retain.safetensors").exists()


@pytest.mark.parametrize("lost", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_others_and_the_next_run_goes_on(saved, people, lost, monkeypatch):
    arguments = measure_arguments(saved, people)
    ended = run_several(killed_while_measuring, lost, *arguments, folder=people / "logs")
    left = ended[1 - lost]
    assert ended[lost].code == -signal.SIGKILL
    assert left.code == 3, left.errors
    assert f"Process {lost} of this run is gone" in left.errors
    assert "goes on from what was kept" in left.errors
    assert "Traceback" not in left.errors
    assert not (people / "retain.safetensors").exists()
    if lost == 0:
        return

    resumed = run_several(program, *arguments, folder=people / "logs")
    assert [process.code for process in resumed] == [0, 0], resumed[0].errors
    assert "Went on with an interrupted pass after" in resumed[0].errors
    monkeypatch.setenv("KVW_CACHE", str(people / "another cache"))
    monkeypatch.setattr(examples, "token_budget", lambda device: 40)
    with pytest.raises(SystemExit):
        main([str(argument) for argument in measure_arguments(saved, people, out="one.safetensors")])
    one, two = (Statistics.load(people / name) for name in ("one.safetensors", "retain.safetensors"))
    assert one.counts == two.counts
    assert all(torch.equal(one.sums[key], two.sums[key]) for key in one.sums)


def killed_while_measuring(lost, *arguments):
    plain, batches = examples.run_batch, []

    def run_batch(*some):
        batches.append(1)
        if len(batches) == 3 and current().rank == lost:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(*some)

    examples.run_batch = run_batch
    examples.SECONDS_BETWEEN_SAVES = 0.0
    program(*arguments)


def killed_while_the_first_weakens():
    launch._join()
    model, _ = tiny_models.build("llava")
    batches = [text_batch(1, 9, 3, seed) for seed in range(4)]
    steps = []

    def step(found):
        steps.append(found.number)
        time.sleep(0.3)

    with together() as processes:
        if processes.rank == 1:
            plain = processes._meet
            processes._meet = lambda *some, **more: os.kill(os.getpid(), signal.SIGKILL) if steps else plain(*some)
            steps.append("the next time it hears of the first")
        try:
            kvw.weaken(model, batches, None, kvw.KvwSettings(seed=None, retain_contrast=False), on_step=step)
        except LostProcess as error:
            return steps, error.gone


def test_the_first_process_does_not_weaken_to_the_end_for_a_lost_one(tmp_path):
    first, second = run_several(killed_while_the_first_weakens, folder=tmp_path)
    assert second.code == -signal.SIGKILL
    assert first.code == 0, first.errors
    assert first.result == ([0], (1,))


def bug_in_the_second(*arguments):
    plain = examples.run_batch

    def run_batch(*some):
        if current().rank == 1:
            raise RuntimeError("a bug\nwith a second line")
        plain(*some)

    examples.run_batch = run_batch
    program(*arguments)


def test_a_bug_in_one_process_shows_its_traceback_once(saved, people):
    first, second = run_several(bug_in_the_second, *measure_arguments(saved, people), folder=people / "logs")
    assert (first.code, second.code) == (3, 1)
    assert "Process 1 of 2 stopped because of an error in the program" in first.errors
    assert "RuntimeError: a bug" in first.errors
    assert "Traceback" not in first.errors
    assert "Traceback" in second.errors


def interrupted_in_the_second(*arguments):
    plain = examples.run_batch

    def run_batch(*some):
        if current().rank == 1:
            raise KeyboardInterrupt
        plain(*some)

    examples.run_batch = run_batch
    program(*arguments)


def test_ctrl_c_in_one_process_ends_all(saved, people):
    first, second = run_several(interrupted_in_the_second, *measure_arguments(saved, people), folder=people / "logs")
    assert (first.code, second.code) == (130, 130)
    assert "interrupted; no output was written" in first.errors
    assert second.errors == ""


def ended_by_the_launcher(*arguments):
    plain, batches = examples.run_batch, []

    def run_batch(*some):
        batches.append(1)
        if len(batches) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        plain(*some)

    examples.run_batch = run_batch
    program(*arguments)


def test_what_was_measured_is_kept_when_the_launcher_ends_all_processes(saved, people):
    arguments = measure_arguments(saved, people)
    first, second = run_several(ended_by_the_launcher, *arguments, folder=people / "logs")
    assert (first.code, second.code) == (130, 130)
    assert "goes on from what was kept" in " ".join(first.errors.split())
    assert "Traceback" not in first.errors
    assert second.errors == ""
    kept = [path.name for path in (cache_directory() / "statistics").iterdir()]
    assert [name.endswith(".unfinished.safetensors") for name in kept] == [True]


def test_typing_errors_and_verbs_with_nothing_to_deal_out_are_for_the_first_process(saved, people):
    first, second = run_several(program, "measure", "--nonsense", folder=people / "logs")
    assert (first.code, second.code) == (2, 2)
    assert first.errors
    assert (second.out, second.errors) == ("", "")
    first, second = run_several(program, "inspect", saved["llava"], folder=people / "logs")
    assert (first.code, second.code) == (0, 0)
    assert "down_proj" in first.out
    assert (second.out, second.errors) == ("", "")


def test_an_output_that_exists_is_refused_once(saved, people):
    (people / "retain.safetensors").write_text("something")
    first, second = run_several(program, *measure_arguments(saved, people), folder=people / "logs")
    assert (first.code, second.code) == (2, 2)
    assert "exists" in first.errors
    assert second.errors == ""


def test_processes_that_cannot_find_each_other_say_so(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("accelerate.PartialState._shared_state", {})
    with pytest.raises(UserError, match="could not find each other"):
        launch._join()


def test_who_speaks_when_all_end_with_an_error(monkeypatch):
    monkeypatch.setattr(launch, "SECONDS_BEFORE_LEAVING", 0.0)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert launch.launched_rank() is None
    assert launch.speaks_for_all(UserError("alone"))
    monkeypatch.setenv("WORLD_SIZE", "4")
    for rank, speaking in (("0", [True] * 4), ("2", [False, False, True, True])):
        monkeypatch.setenv("RANK", rank)
        errors = [UserError("x"), LostProcess("x", gone=[1, 3]), LostProcess("x", gone=[0]), LostProcess("x")]
        assert [launch.speaks_for_all(error) for error in errors] == speaking


def test_of_many_processes_those_known_to_have_ended_are_named(tmp_path):
    (ended,) = run_several(os.getpid, folder=tmp_path, size=1)
    here = socket.gethostname()
    processes = Processes()
    processes.size = 4
    with subprocess.Popen(["true"], stdout=subprocess.PIPE) as unburied:
        unburied.stdout.read()
        time.sleep(0.1)
        places = [(here, os.getpid()), (here, ended.result), ("elsewhere", ended.result), (here, unburied.pid)]
        processes._places = places
        assert processes._gone() == [1, 3]
