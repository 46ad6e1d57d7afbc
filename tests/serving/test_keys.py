"""Keys: each opens its own edits, on a running server too, and nothing opens what it is not for."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import openai
import pytest
from tests.serving.running import Toy, running

from kvw.errors import UserError
from kvw.serving.checks import check_audit_log, check_keys
from kvw.serving.keys import Keys, add_key, allowed, read_keys, remove_key
from kvw.serving.names import HEADER, Names
from kvw.serving.refusals import Refusal

NAMES = Names("toy:vanilla", ["alice", "bob"], allow_plain=True)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.json"


def refused(call, *arguments):
    with pytest.raises(Refusal) as told:
        call(*arguments)
    return told.value.status, told.value.code


def test_the_file_has_a_digest_and_no_key_and_only_its_owner_reads_it(file):
    secret = add_key(file, "acme", ["alice"])
    assert len(secret) > 40
    assert secret not in file.read_text()
    assert hashlib.sha256(secret.encode()).hexdigest() in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert add_key(file, "other", ["alice"]) != secret
    assert Keys(file).owner([f"Bearer {secret}"]).name == "acme"
    assert Keys(file).owner([f"bearer  {secret}"]).models == ("alice",)


def test_every_other_form_of_a_header_is_refused(file):
    secret = add_key(file, "acme", ["alice"])
    keys = Keys(file)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    for wrong in ("", secret, f"Basic {secret}", f"Bearer {secret}x", f"Bearer {secret[:-1]}", "Bearer ", "Bearer"):
        assert refused(keys.owner, [wrong]) == (401, "invalid_api_key")
    assert refused(keys.owner, [f"Bearer {digest}"]) == (401, "invalid_api_key")
    assert refused(keys.owner, ["Bearer \udcff\xe9"]) == (401, "invalid_api_key")
    assert refused(keys.owner, []) == (401, "no_api_key")
    assert refused(keys.owner, [f"Bearer {secret}", f"Bearer {secret}"]) == (401, "no_api_key")


def test_keys_come_and_go_while_the_server_runs(file):
    first = add_key(file, "acme", ["alice"])
    keys = Keys(file)
    second = add_key(file, "other", ["bob"])
    assert keys.owner([f"Bearer {second}"]).name == "other"
    remove_key(file, "acme")
    assert refused(keys.owner, [f"Bearer {first}"]) == (401, "invalid_api_key")
    whole = file.read_text()
    file.write_text("{")
    assert refused(keys.owner, [f"Bearer {second}"]) == (503, "keys_unreadable")
    file.unlink()
    assert refused(keys.owner, [f"Bearer {second}"]) == (503, "keys_unreadable")
    file.write_text(whole)
    assert keys.owner([f"Bearer {second}"]).name == "other"


def test_a_key_is_for_its_models_letter_by_letter(file):
    add_key(file, "acme", ["alice", "alice+bob"])
    key = read_keys(file).keys[0]
    assert allowed(key, "alice", [], "toy:vanilla") == "alice"
    assert allowed(key, "alice+bob", [], "toy:vanilla") == "alice+bob"
    assert allowed(key, "toy:vanilla", [], "toy:vanilla") == "alice"
    assert allowed(key, "bob", ["alice"], "toy:vanilla") == "alice"
    for model, headers in (
        ("bob", []),
        ("bob+alice", []),
        ("none", []),
        ("", []),
        ("alice ", []),
        ("ALICE", []),
        ("alice", ["bob"]),
        ("alice", ["none"]),
        ("alice", [""]),
        ("alice", ["toy:vanilla"]),
    ):
        with pytest.raises(Refusal, match=r"It is for: alice, alice\+bob") as told:
            allowed(key, model, headers, "toy:vanilla")
        assert told.value.status == 403
    add_key(file, "monitor", [], metrics=True)
    assert refused(allowed, read_keys(file).keys[1], "toy:vanilla", [], "toy:vanilla")[0] == 403


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "no file of keys"),
        ('{"format": "kvw keys 2", "keys": []}', "no file of keys"),
        ('{"keys": [{"name": "a", "sha256": "short"}]}', "no file of keys"),
        ('{"keys": [{"name": "a b", "sha256": "' + "0" * 64 + '"}]}', "no file of keys"),
        (json.dumps({"keys": [{"name": name, "sha256": "0" * 64} for name in "ab"]}), "two keys of one sha256"),
        (json.dumps({"keys": [{"name": "a", "sha256": digit * 64} for digit in "01"]}), "two keys of one name"),
    ],
)
def test_files_that_are_no_keys(file, content, words):
    file.write_text(content)
    with pytest.raises(UserError, match=words):
        read_keys(file)


def test_keys_that_cannot_be_made_or_removed(file):
    add_key(file, "acme", ["alice"])
    before = file.read_bytes()
    for name, models, words in (
        ("acme", ["bob"], "a key 'acme' already"),
        ("a b", ["bob"], "name of a key"),
        ("other", ["a b"], "name of an edit"),
        ("other", [], "would open nothing"),
    ):
        with pytest.raises(UserError, match=words):
            add_key(file, name, models)
    with pytest.raises(UserError, match="no key 'other'"):
        remove_key(file, "other")
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("models", "words"),
    [(["carol"], "for 'carol', which is not served"), (["toy.vanilla"], "not served"), (["none"], "not served")],
)
def test_keys_for_what_is_not_served_are_told_before_the_model_is_loaded(file, models, words):
    add_key(file, "acme", models)
    with pytest.raises(UserError, match=words):
        check_keys(file, Names("toy.vanilla", ["alice"]))
    remove_key(file, "acme")
    with pytest.raises(UserError, match="has no key"):
        check_keys(file, NAMES)


def test_a_log_that_cannot_be_written_is_told_before_the_model_is_loaded(tmp_path):
    with pytest.raises(UserError, match="could not be written"):
        check_audit_log(tmp_path / "none" / "log")
    check_audit_log(tmp_path / "log")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


@pytest.fixture(scope="module")
def toy():
    return Toy()


@pytest.fixture(scope="module")
def served(toy, tmp_path_factory):
    """A server with keys: its URL, the keys by name, their file, and its log."""
    folder = tmp_path_factory.mktemp("served")
    keys = {name: add_key(folder / "keys", name, [name]) for name in ("alice", "bob")}
    keys["both"] = add_key(folder / "keys", "both", ["none", "alice+bob"])
    keys["monitor"] = add_key(folder / "keys", "monitor", [], metrics=True)
    with running(toy, allow_plain=True, keys=folder / "keys", audit=folder / "log") as found:
        yield found, keys, folder / "keys", folder / "log"


def client(found, key):
    return openai.OpenAI(base_url=found.url, api_key=key, max_retries=0)


def ask(found, key, model, text, **options):
    message = {"role": "user", "content": text}
    asked = client(found, key).chat.completions.create(model=model, messages=[message], max_tokens=16, **options)
    return asked.choices[0].message.content.strip()


@pytest.mark.thorough
def test_each_key_gets_its_own_edits_and_nothing_else(toy, served):
    found, keys, *_ = served
    says = {name: toy.says(tuple(name.split("+")) if name else (), [_asked(toy)])[0] for name in ("", "alice", "bob")}
    for model in ("alice", "toy:vanilla"):
        assert ask(found, keys["alice"], model, toy.question) == says["alice"]
    assert ask(found, keys["bob"], "toy:vanilla", toy.question) == says["bob"]
    assert ask(found, keys["both"], "none", toy.question) == says[""]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda name: ask(found, keys[name], "toy:vanilla", toy.question), ["alice", "bob"] * 6))
    assert answers == [says["alice"], says["bob"]] * 6
    assert [model.id for model in client(found, keys["alice"]).models.list()] == ["toy:vanilla", "alice"]
    assert [model.id for model in client(found, keys["monitor"]).models.list()] == []
    assert client(found, keys["bob"]).models.retrieve("bob").id == "bob"
    for key, model in (("alice", "bob"), ("alice", "alice+bob"), ("alice", "none"), ("monitor", "toy:vanilla")):
        with pytest.raises(openai.PermissionDeniedError) as told:
            ask(found, keys[key], model, toy.question)
        assert told.value.code == "model_not_allowed"
    with pytest.raises(openai.PermissionDeniedError):
        client(found, keys["alice"]).models.retrieve("bob")


def _asked(toy):
    return next(example for example in toy.examples if example.question == toy.question and not example.images)


@pytest.mark.thorough
def test_without_a_key_or_with_header_tricks_nothing_is_reached(toy, served):
    found, keys, *_ = served
    address, body = urlsplit(found.url).netloc, {"model": "alice", "messages": [{"role": "user", "content": "Who?"}]}

    def status(path, *headers, method="POST", content=body):
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.putrequest(method, path)
        data = json.dumps(content).encode()
        for name, value in (("Content-Length", str(len(data))), *headers):
            connection.putheader(name, value)
        connection.endheaders(data)
        reply = connection.getresponse()
        return reply.status, reply.read()

    chat, mine = "/v1/chat/completions", ("Authorization", f"Bearer {keys['alice']}")
    assert status(chat, mine)[0] == 200
    for headers in (
        (),
        (("Authorization", f"Bearer {keys['alice']}x"),),
        (("Authorization", f"Basic {keys['alice']}"),),
        (("X-API-Key", keys["alice"]),),
        (("Cookie", f"Authorization=Bearer {keys['alice']}"),),
        (mine, ("Authorization", f"Bearer {keys['bob']}")),
        (("X-Forwarded-Authorization", f"Bearer {keys['alice']}"),),
    ):
        assert status(chat, *headers)[0] == 401
        for path in ("/v1/models", "/v1/models/alice", "/metrics"):
            assert status(path, *headers, method="GET")[0] == 401
    assert status(f"{chat}?api_key={keys['alice']}")[0] == 401
    for tricks, code in (
        ((mine, (HEADER, "bob")), 403),
        ((mine, (HEADER, "none")), 403),
        ((mine, (HEADER.lower(), "alice+bob")), 403),
        ((mine, (HEADER, "alice"), (HEADER, "bob")), 400),
        ((mine, ("X-Original-URL", "/health"), (HEADER, "none")), 403),
    ):
        assert status(chat, *tricks)[0] == code
    assert status("/health", method="GET") == (200, b'{"status":"ok"}')
    assert status("/metrics", mine, method="GET")[0] == 403
    big = {"model": "alice", "messages": [{"role": "user", "content": "a" * 3_000_000}]}
    assert status(chat, content=big)[0] == 401


@pytest.mark.thorough
def test_a_revoked_key_is_refused_by_the_running_server(toy, served):
    found, _, file, _ = served
    secret = add_key(file, "late", ["bob"])
    assert ask(found, secret, "bob", toy.question) == toy.says(("bob",), [_asked(toy)])[0]
    remove_key(file, "late")
    with pytest.raises(openai.AuthenticationError):
        ask(found, secret, "bob", toy.question)


def numbers(found, key):
    """What /metrics says once no request is in progress: a request is counted and logged after its answer is sent."""
    for _ in range(200):
        connection = http.client.HTTPConnection(urlsplit(found.url).netloc, timeout=60)
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {key}"})
        told = connection.getresponse().read().decode()
        counted = dict(line.rsplit(" ", 1) for line in told.splitlines() if not line.startswith("#"))
        if counted["kvw_requests_in_progress"] == "0":
            return counted
        time.sleep(0.05)
    raise AssertionError(counted)


@pytest.mark.thorough
def test_the_log_and_the_numbers_say_who_and_how_much_and_not_what(toy, served):
    found, keys, _, log = served
    numbers(found, keys["monitor"])
    before = len(log.read_text().splitlines()) if log.exists() else 0
    answer = ask(found, keys["alice"], "alice", toy.question)
    stream = client(found, keys["bob"]).chat.completions.create(
        model="bob", messages=[{"role": "user", "content": toy.question}], stream=True, max_tokens=3
    )
    assert list(stream)
    for wrong in (lambda: ask(found, "guess", "alice", "secret words"), lambda: ask(found, keys["bob"], "alice", "x")):
        with pytest.raises(openai.APIStatusError):
            wrong()
    counted = numbers(found, keys["monitor"])
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()[before:]]
    assert [(one["key"], one["edits"], one["stream"], one["status"]) for one in lines] == [
        ("alice", "alice", False, 200),
        ("bob", "bob", True, 200),
        (None, None, None, 401),
        ("bob", None, None, 403),
    ]
    assert [one["answer_tokens"] for one in lines][1:] == [3, None, None]
    assert lines[0]["prompt_tokens"] == lines[1]["prompt_tokens"] > 5
    assert os.stat(log).st_mode & 0o777 == 0o600  # noqa: PTH116
    for content in (toy.question, answer, "secret words", *keys.values()):
        assert content not in text
    logged = [json.loads(line) for line in text.splitlines()]
    for edits in ("alice", "bob"):
        mine = [one for one in logged if one["edits"] == edits]
        assert int(counted[f'kvw_requests_total{{edits="{edits}",status="200"}}']) == len(mine)
        assert float(counted[f'kvw_answer_tokens_total{{edits="{edits}"}}']) == sum(
            one["answer_tokens"] for one in mine
        )
    assert float(counted['kvw_request_seconds_count{edits="alice"}']) > 0
