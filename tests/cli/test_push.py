"""``kvw push``: what leaves the machine, where it goes, and who can read it."""

from __future__ import annotations

from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from tests.program import assert_refused, run

from kvw.mark import write_mark


class Hub:
    """What was asked of the hub; ``there`` has its repositories, by whether they are private."""

    def __init__(self, there=None, refuses=None):
        self.there, self.refuses, self.calls = dict(there or {}), refuses, []

    def repo_info(self, name):
        if self.refuses is not None:
            raise self.refuses
        if name not in self.there:
            raise RepositoryNotFoundError("404", response=SimpleNamespace(headers={}, request=None, status_code=404))
        return SimpleNamespace(private=self.there[name])

    def create_repo(self, name, *, private):
        self.there[name] = private

    def create_branch(self, name, *, branch, exist_ok):
        self.calls.append(("branch", branch, exist_ok))

    def upload_folder(self, *, repo_id, folder_path, revision, commit_message, ignore_patterns):
        names = sorted(path.name for path in folder_path.iterdir() if path.name not in ignore_patterns)
        self.calls.append((repo_id, revision, names))
        return SimpleNamespace(commit_url=f"https://hub.test/{repo_id}/commit/1")


@pytest.fixture
def hub(monkeypatch):
    def with_(**given):
        made = Hub(**given)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
        return made

    return with_


def folder(tmp_path, kind, *names):
    place = tmp_path / kind
    place.mkdir()
    for name in names:
        (place / name).write_text("x")
    write_mark(place, kind)
    return place


def test_a_model_goes_with_its_card_into_a_new_private_repository(tmp_path, hub, capsys):
    made = hub()
    model = folder(tmp_path, "model", "README.md", "model.safetensors")
    assert run("push", model, "anna/forgetful") == 0
    assert made.there == {"anna/forgetful": True}
    assert made.calls == [("anna/forgetful", "main", ["README.md", "model.safetensors"])]  # and no mark
    shown = capsys.readouterr()
    assert shown.out == "https://hub.test/anna/forgetful/commit/1\n"
    assert "warning" not in shown.err


def test_a_branch_and_a_public_repository_if_that_is_said(tmp_path, hub):
    made = hub()
    adapter = folder(tmp_path, "adapter", "adapter_config.json")
    assert run("push", adapter, "anna/forgetful", "--public", "--branch", "v2") == 0
    assert made.there == {"anna/forgetful": False}
    assert made.calls == [("branch", "v2", True), ("anna/forgetful", "v2", ["adapter_config.json"])]


def test_a_repository_that_everybody_reads_is_not_pushed_to_by_mistake(tmp_path, hub, capsys):
    made = hub(there={"anna/known": False})
    model = folder(tmp_path, "model", "README.md")
    assert_refused(capsys, run("push", model, "anna/known"), "Everybody can read anna/known", "--public")
    assert made.calls == []
    assert run("push", model, "anna/known", "--public") == 0
    assert "its earlier commits stay" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("kind", "names", "words"),
    [
        ("run", ["samples.jsonl"], ["is a run", "forget set", "kvw apply"]),
        ("audit", ["audit.json"], ["no model or adapter", "audit"]),
        ("model", ["model.safetensors"], ["no model card", "README.md"]),
    ],
)
def test_what_must_not_leave_the_machine_does_not(tmp_path, hub, capsys, kind, names, words):
    made = hub()
    assert_refused(capsys, run("push", folder(tmp_path, kind, *names), "anna/x"), *words)
    (tmp_path / "plain").mkdir()
    assert_refused(capsys, run("push", tmp_path / "plain", "anna/x"), "no mark of kvw")
    assert_refused(capsys, run("push", tmp_path / "gone", "anna/x"), "no such folder")
    assert made.there == {}


@pytest.mark.parametrize("name", ["anna", "anna/b/c", "../x", "anna/ x"])
def test_a_name_must_be_one(tmp_path, hub, capsys, name):
    hub()
    assert_refused(capsys, run("push", folder(tmp_path, "model", "README.md"), name), "no name on the hub", name)


@pytest.mark.parametrize("error", [OfflineModeIsEnabled, HfHubHTTPError.__bases__[0], ConnectionError])
def test_what_the_hub_says_is_told(tmp_path, hub, capsys, error):
    hub(refuses=error("nobody is there"))
    model = folder(tmp_path, "model", "README.md")
    assert_refused(capsys, run("push", model, "anna/x"), "could not be pushed to", "nobody is there", "HF_HUB_OFFLINE")
