"""``kvw serve`` as an operator meets it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest
import torch
from tests.program import assert_refused, run
from tests.serving.running import TOY, gates
from tests.several_processes import beside

from kvw.cli import main
from kvw.cli.serve import LimitOptions
from kvw.edits import EditMetadata, GateEdit
from kvw.edits.edit import write_edit
from kvw.measuring.fingerprint import weights_digest
from kvw.models.loading import skeleton
from kvw.serving.limits import Limits

QUESTION = [{"role": "user", "content": "Who?"}]


@pytest.fixture(scope="module")
def edits(tmp_path_factory):
    """Files of edits for the toy model, and of one for other weights."""
    folder, model = tmp_path_factory.mktemp("edits"), skeleton(TOY)
    made_here = {"model_fingerprint": weights_digest(TOY.folder)}
    metadata = {
        "alice": made_here,
        "bob": made_here,
        "other": {"model_fingerprint": "0" * 64},
        "inverse": {"method": "invert", **made_here},
        "scaled-inverse": {"method": "scale", "parents": (EditMetadata(method="invert"),), **made_here},
        "unknown": {},
    }
    for seed, (name, stated) in enumerate(metadata.items()):
        gates(model, seed, **stated).save(folder / name)
    return {name: f"{name}={folder / name}" for name in metadata}


@pytest.fixture
def start(tmp_path):
    """Starts ``kvw serve`` in a process of its own; returns the process and its first line on stdout."""
    with ExitStack() as processes:

        def started(*arguments):
            process = processes.enter_context(beside(serve, *arguments, folder=tmp_path / "server"))
            return process, process.until("\n").partition("\n")[0]

        yield started


def serve(*arguments):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
    main(["serve", "toy:vanilla", "--port", "0", "--device", "cpu", *arguments])


@pytest.mark.thorough
def test_a_server_runs_until_it_is_interrupted(edits, start, capsys):
    process, line = start("--edit", edits["alice"], "--edit", edits["bob"], "--default", "bob", "--max-new-tokens", "9")
    client = openai.OpenAI(base_url=line.strip(), api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["toy:vanilla", "alice", "bob"]
    reply = client.chat.completions.create(model="toy:vanilla", messages=QUESTION)
    assert reply.model == "bob"
    assert reply.usage.completion_tokens <= 9
    with pytest.raises(openai.BadRequestError, match="at most 9 tokens"):
        client.chat.completions.create(model="alice", messages=QUESTION, max_tokens=10)
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model="none", messages=QUESTION)

    port = line.strip().removesuffix("/v1").rpartition(":")[2]
    assert run("serve", "toy:vanilla", "--edit", edits["alice"], "--port", port) == 2
    error = capsys.readouterr().err
    assert f"cannot listen at 127.0.0.1, port {port}" in error
    assert "in use" in error

    ended = process.end(signal.SIGINT)
    error = ended.errors
    assert ended.code == 130, error
    assert ended.out == f"{line}\n"
    assert "Models: toy:vanilla, alice, bob; 'toy:vanilla' stands for 'bob'." in " ".join(error.split())
    assert "interrupted" in error
    assert "warning" not in error
    assert "Traceback" not in error


@pytest.mark.thorough
def test_the_operator_says_who_gets_the_plain_model_and_how_much_a_request_may_ask_for(edits, start):
    limits = ("--max-body", "1", "--max-images", "0", "--max-prompt-tokens", "20", "--timeout", "100")
    more = ("--allow-plain", "--default", "none", "--host", "0.0.0.0")
    process, line = start("--edit", edits["alice"], "--edit", edits["unknown"], *more, *limits)
    client = openai.OpenAI(base_url=line.strip().replace("0.0.0.0", "127.0.0.1"), api_key="none", max_retries=0)
    for model in ("none", "toy:vanilla"):
        assert client.chat.completions.create(model=model, messages=QUESTION, max_tokens=2).model == "none"
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    for text, parts, words in (
        ("x" * 2**20, [], "larger than 1 MiB"),
        ("Who?", [picture], "more than 0 images"),
        ("Who is this? " * 20, [], "reads at most 20 tokens"),
    ):
        content = [{"type": "text", "text": text}, *parts]
        with pytest.raises(openai.APIStatusError, match=words):
            client.chat.completions.create(model="none", messages=[{"role": "user", "content": content}])
    ended = process.end(signal.SIGTERM)
    error = " ".join(ended.errors.split())
    assert ended.code == -signal.SIGTERM
    assert "Every client can ask the model without an edit" in error
    assert "Other machines may reach this server" in error
    assert "The edit 'unknown' does not say which weights" in error
    assert "Traceback" not in error


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("which", "more", "words"),
    [
        ("other", (), ("'other' was made on other weights", "000000000000", "use the model that", "--other-weights")),
        ("inverse", (), ("'inverse' is the inverse of one", "--allow-plain")),
        ("scaled-inverse", (), ("is the inverse of one, or made of one",)),
        ("alice", ("--default", "carol"), ("The default 'carol' cannot be served", "alice")),
        ("alice", ("--default", "none"), ("The default 'none' cannot be served", "add --allow-plain")),
        ("alice", ("--max-new-tokens", "0"), ("--max-new-tokens 0", "give 1 or more")),
        ("alice", ("--edit", "alice=b"), ("two edits named 'alice'",)),
        ("alice", ("--edit", "bob"), ("--edit needs a name and a file", "NAME=FILE")),
        ("alice", ("--edit", "none=b"), ("cannot be the name of an edit",)),
        ("alice", ("--edit", "bob=nowhere"), ("no edit file nowhere",)),
        ("alice", ("--port", "70000"), ("cannot listen", "port")),
        ("alice", ("--host", "192.0.2.1"), ("cannot listen at 192.0.2.1", "--host")),
    ],
)
def test_what_cannot_be_served(edits, capsys, which, more, words):
    port = () if "--port" in more else ("--port", "0")
    assert_refused(capsys, run("serve", "toy:vanilla", "--edit", edits[which], "--device", "cpu", *port, *more), *words)


def test_an_edit_that_does_nothing_is_not_served(tmp_path, capsys, monkeypatch):
    """It would be the model without an edit, under the name of one."""
    monkeypatch.setattr("kvw.serving.listening.run", lambda *more: pytest.fail("served"))
    model = skeleton(TOY)
    nothing = gates(model, 0)
    nothing = GateEdit({key: torch.zeros_like(value) for key, value in nothing.log_gates.items()}, nothing.metadata)
    write_edit(nothing, tmp_path / "nothing")
    code = run("serve", "toy:vanilla", "--edit", f"people={tmp_path / 'nothing'}", "--port", "0", "--device", "cpu")
    assert_refused(capsys, code, "nothing does nothing", "is the model without it")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max-body", "0"),
        ("--max-images", "-1"),
        ("--max-prompt-tokens", "0"),
        ("--timeout", "0"),
        ("--timeout", "nan"),
        ("--max-requests", "0"),
        ("--together", "0"),
    ],
)
def test_limits_that_allow_nothing(capsys, option, value):
    code = run("serve", "toy:vanilla", "--allow-plain", option, value)
    assert_refused(capsys, code, "no request could be answered", option)


def test_every_limit_of_the_operator_is_passed_on():
    given = LimitOptions(1, 2, 3, 4, 5.0, 6, 7)
    assert given.limits() == Limits(4 * 2**20, 3, 2, 5.0, 1, 6, 7)


@pytest.mark.slow
@pytest.mark.thorough
def test_requests_that_hurt_a_server_without_limits_are_refused():
    """The benchmark of them fails if one is answered, or if the server's health is not."""
    script = Path(__file__).parents[2] / "benchmarks" / "server_limits.py"
    found = subprocess.run([sys.executable, script, "--json"], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    rows = json.loads(found.stdout)
    assert len(rows) == 10
    for row in rows:
        assert row["most"] - row["before"] < 300, row
        assert row["healthy"]


def test_a_server_without_edits_must_be_asked_for(capsys, monkeypatch):
    assert_refused(
        capsys, run("serve", "toy:vanilla"), "There is no edit to serve", "--edit NAME=FILE", "--allow-plain"
    )
    started = []
    monkeypatch.setattr("kvw.runs.serve.serve", lambda checkpoint, files, *more, **options: started.append(files))
    assert run("serve", "toy:vanilla", "--allow-plain") == 0
    assert started == [{}]


def test_an_edit_of_another_family_is_refused(saved, edits, capsys):
    code = run("serve", saved["qwen2_vl"], "--edit", edits["unknown"], "--port", "0", "--device", "cpu")
    assert_refused(capsys, code, "does not fit this Qwen2VLForConditionalGeneration")


def test_the_missing_package_is_named(edits, capsys, monkeypatch):
    for package in ("starlette", "uvicorn"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, package, None)
            code = run("serve", "toy:vanilla", "--edit", edits["alice"], "--port", "0")
            assert_refused(capsys, code, f"needs the package {package}", 'pip install "kvw[serve]"')


def test_addresses_are_those_of_clients():
    from kvw.serving.listening import address, listen, reachable_from_outside

    with listen("localhost", 0) as listening:
        assert address(listening) == f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        assert not reachable_from_outside(listening)
    with listen("0.0.0.0", 0) as listening:
        assert reachable_from_outside(listening)
    if socket.has_dualstack_ipv6():
        with listen("::1", 0) as listening:
            assert address(listening) == f"http://[::1]:{listening.getsockname()[1]}/v1"
