"""Asking a model behind a server: transformers' own server, and a fake one for everything that goes wrong."""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import sys
import threading

import numpy
import pytest
from PIL import Image
from tests import tiny_models
from tests.program import run
from tests.servers import completion, fake_server, transformers_serve

from kvw.data import Example, load_image, prepare
from kvw.data.example import Turn
from kvw.errors import UserError
from kvw.evaluation.endpoint import EndpointModel
from kvw.evaluation.evaluation import evaluate_endpoint
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.records import Reply
from kvw.models.loading import Checkpoint, load_model, load_processor
from kvw.toy import World, checkpoint

pytestmark = pytest.mark.thorough

A, B = (tiny_models.noise_png(seed, (40, 30)) for seed in (1, 2))
EXAMPLES = [
    Example("Who is this?", "answer to Who is this?", (A, B), "file:1"),
    Example("Where?", "elsewhere", (), "file:2"),
    Example("Who is this?", "another reference", (A, B), "file:3"),
    Example("Who is this?", "one image less", (A,), "file:4"),
]
DAMAGED = Example("Who is this?", "Nobody", (A[: len(A) // 2],), "damaged")


@pytest.fixture
def server():
    with fake_server() as fake:
        yield fake


@pytest.fixture(scope="session")
def toy_server(tmp_path_factory):
    """The toy model behind ``transformers serve``, with settings that spoil answers unless they are overruled."""
    folder = tmp_path_factory.mktemp("checkpoints") / "toy"
    shutil.copytree(checkpoint("vanilla"), folder)
    settings = json.loads((folder / "generation_config.json").read_text())
    spoilt = {"do_sample": True, "temperature": 9.0, "repetition_penalty": 0.1}
    (folder / "generation_config.json").write_text(json.dumps(settings | spoilt))
    with transformers_serve(folder, tmp_path_factory.mktemp("serve") / "log.txt") as url:
        yield url, str(folder)


def png(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def toy_questions():
    """40 questions of the toy world, half of them with an image, and four with pictures the model does not know."""
    world = World()
    lines = world.split("forget")[:20] + world.split("retain_text")[:20]
    examples = []
    for line in lines:
        picture = line.draw(world.image_size)
        examples.append(Example(line.question, line.answer, (png(picture),) if picture else (), line.identifier))
    rotated = Image.Exif()
    rotated[274] = 6
    wide = Image.open(io.BytesIO(tiny_models.noise_png(3, (150, 70))))
    odd = [
        (png(wide, exif=rotated),),
        (png(Image.new("RGBA", (31, 77), (200, 30, 90, 120))),),
        (png(Image.fromarray(numpy.arange(9000, dtype=numpy.uint16).reshape(100, 90) * 7)),),
        (examples[0].images[0], examples[1].images[0]),
    ]
    return examples + [Example("Who is this?", "nobody", images, f"odd:{index}") for index, images in enumerate(odd)]


def test_a_served_model_says_what_it_says_here(toy_server):
    url, name = toy_server
    toy = Checkpoint(checkpoint("vanilla"), "toy:vanilla")
    model, processor, examples = load_model(toy, "cpu"), load_processor(toy), toy_questions()
    for asked, max_new_tokens in ((examples, 16), (examples[15:25], 2)):
        served = EndpointModel(url, name).answers(asked, max_new_tokens=max_new_tokens)
        local = generate_answers(model, processor, prepare(asked, processor), max_new_tokens=max_new_tokens)
        assert served == [Reply(text) for text in local]
        right = [text == example.answer for text, example in zip(local, asked, strict=True)]
        assert sum(right[:40]) == 40 if max_new_tokens == 16 else not all(right)


def test_the_command_gives_the_table_of_the_local_evaluation(toy_server, tmp_path, capsys):
    url, name = toy_server
    rows = []
    for example in toy_questions()[12:28]:
        row = {"question": example.question, "answer": example.answer, "id": example.identifier}
        if example.images:
            (tmp_path / f"{example.identifier}.png").write_bytes(example.images[0])
            row["image"] = f"{example.identifier}.png"
        rows.append(json.dumps(row))
    data = tmp_path / "people.jsonl"
    data.write_text("\n".join(rows))
    common = ("--data", data, "--max-new-tokens", 3)
    assert run("evaluate", "toy:vanilla", *common, "--samples", tmp_path / "local.jsonl", "--json") == 0
    local = json.loads(capsys.readouterr().out)
    more = ("--endpoint", url, "--served-model", name)
    assert run("evaluate", *more, *common, "--samples", tmp_path / "served.jsonl", "--json") == 0
    served = json.loads(capsys.readouterr().out)
    assert 0 < local["model"]["people"]["exact"] < 1
    assert local["model"]["people"].pop("probability") > 0
    assert served["model"]["people"].pop("probability") is None
    assert served == local
    here, there = (
        [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("local", "served")
    )
    for row, other in zip(here, there, strict=True):
        assert row["model"].pop("probability") > 0
        assert other["model"].pop("probability") is None
        assert other == row

    assert run("evaluate", *more, *common) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "people" in line]
    assert [cell.strip() for cell in line.strip("│ ").split("│")][-1] == "-"

    assert run("evaluate", "--endpoint", url, "--served-model", "another", *common) == 2
    error = capsys.readouterr().err
    assert "does not answer questions to 'another'" in error
    assert "Server is pinned to" in error


def test_questions_are_put_as_to_a_local_model(server):
    EndpointModel(server.url, "served").answers(EXAMPLES[:1], max_new_tokens=7)
    opening, request = server.requests
    assert opening["max_tokens"] == 1
    content = request.pop("messages")[0]
    assert content["role"] == "user"
    assert [part["type"] for part in content["content"]] == ["image_url", "image_url", "text"]
    assert content["content"][-1]["text"] == "Who is this?"
    for part, source in zip(content["content"], (A, B), strict=False):
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/png;base64"
        shown = Image.open(io.BytesIO(base64.b64decode(data)))
        assert shown.mode == "RGB"
        assert shown.tobytes() == load_image(source, "").tobytes()
    assert request == {"model": "served", "max_tokens": 7, "temperature": 0.0, "frequency_penalty": 0.0}


def test_conversations_are_put_whole_and_documents_not_at_all(server):
    earlier = (Turn("system", "Be brief."), Turn("user", "Who is this?", 1), Turn("assistant", "Ada"))
    talks = [Example("Where?", "Rome", (A,), "d:1", earlier=earlier), Example("Where?", "Rome", (A,), "d:2")]
    EndpointModel(server.url, "served").answers(talks)
    (talk, _) = sorted((request["messages"] for request in server.requests[1:]), key=len, reverse=True)
    assert [message["role"] for message in talk] == ["system", "user", "assistant", "user"]
    assert [[part["type"] for part in message["content"]] for message in talk[1:4:2]] == [
        ["image_url", "text"],
        ["text"],
    ]
    with pytest.raises(UserError, match="page: a model behind a server cannot be asked to go on with a document"):
        EndpointModel(server.url, "served").answers([Example("a", "b", (), "page", plain=True)])


def test_records_have_no_probability_and_equal_questions_are_asked_once(server):
    server.answer = lambda question, before: f" answer to {question}\n"
    calls = []
    model = EndpointModel(server.url)
    found = evaluate_endpoint(
        model, {"one": EXAMPLES[:2], "two": EXAMPLES[2:]}, progress=lambda *call: calls.append(call)
    )
    assert model.model == "served"
    assert sorted(server.questions) == ["Where?", "Who is this?", "Who is this?"]
    assert [record.prediction for record in found.records] == [f"answer to {e.question}" for e in EXAMPLES]
    assert [record.exact for record in found.records] == [True, False, False, False]
    assert {record.probability for record in found.records} == {None}
    assert [(s.count, s.failed, s.exact, s.probability) for s in found.summaries.values()] == [
        (2, 0, 0.5, None),
        (2, 0, 0.0, None),
    ]
    assert calls[-1] == (4, 4)
    assert [total for _, total in calls] == [4, 4, 4]


def test_what_the_server_does_not_answer_fails_and_nothing_else(server):
    bad = {
        "Q1": (500, {"error": {"message": "out of memory"}}),
        "Q2": (400, {"error": {"message": "the prompt is too long"}}),
        "Q3": (200, {"error": "no choices here"}),
        "Q4": (200, completion(None)),
        "Q5": (200, "{not json"),
        "Q6": (200, "<html>Bad gateway</html>"),
        "Q7": (200, {"choices": []}),
        "Q8": (200, {"choices": [{"message": "text"}]}),
    }
    server.answer = lambda question, before: bad.get(question, "right")
    examples = [Example(f"Q{index}", "right", (), f"file:{index}") for index in range(10)] + [DAMAGED]
    found = evaluate_endpoint(EndpointModel(server.url, retries=1), {"file": examples})
    summary = found.summaries["file"]
    assert (summary.count, summary.failed, summary.exact) == (11, 9, pytest.approx(2 / 11))
    errors = {record.identifier: record.error for record in found.records}
    assert [name for name, error in errors.items() if error is None] == ["file:0", "file:9"]
    assert errors["damaged"] == "damaged: an image cannot be read."
    assert "out of memory" in errors["file:1"]
    assert "the prompt is too long" in errors["file:2"]
    assert "no text in the reply" in errors["file:4"]
    assert all("no answer in the reply" in errors[f"file:{number}"] for number in (3, 5, 6, 7, 8))
    for record in found.records:
        if record.error:
            assert (record.prediction, record.exact, record.rouge_l_f, record.probability) == ("", False, 0.0, None)
    asked = server.questions
    assert [asked.count(f"Q{index}") for index in (0, 1, 2, 3)] == [1, 2, 1, 1]


def thinking(tokens):
    """A server whose model thinks for 30 tokens, and keeps its thoughts apart."""

    def answer(question, before):
        if question == "easy" or tokens[-1] > 30:
            return 200, completion("a florist", reasoning_content="Okay, the user asks")
        return 200, completion(None, "length", reasoning_content="Okay, the")

    return answer


def allowing(server, tokens):
    """Note how many tokens each request allows."""
    plain = server.reply

    def reply(body):
        if body is not None:
            tokens.append(body["max_tokens"])
        return plain(body)

    return reply


def test_an_answer_that_is_cut_off_inside_a_thought_is_neither_right_nor_wrong(server, monkeypatch):
    tokens = []
    monkeypatch.setattr(server, "reply", allowing(server, tokens))
    server.answer = thinking(tokens)
    examples = [Example("easy", "a florist", (), "file:1"), Example("hard", "a florist", (), "file:2")]
    found = evaluate_endpoint(EndpointModel(server.url, in_flight=1), {"file": examples}, max_new_tokens=20)
    summary = found.summaries["file"]
    assert (summary.count, summary.failed, summary.cut_off, summary.exact) == (2, 0, 1, 1.0)
    assert [record.cut_off for record in found.records] == [False, True]
    assert "cut off" in found.records[1].error
    with pytest.raises(UserError, match="No answer of file can be scored") as refused:
        evaluate_endpoint(EndpointModel(server.url), {"file": examples[1:]}, max_new_tokens=20)
    assert "1 of 1 answers cut off" in str(refused.value)
    assert "--thought-tokens" in str(refused.value)
    whole = EndpointModel(server.url, in_flight=1, thought_tokens=30)
    assert evaluate_endpoint(whole, {"file": examples}, max_new_tokens=20).summaries["file"].exact == 1.0
    assert tokens[-3:] == [1, 50, 50]


def test_the_opening_question_takes_any_reply(server):
    server.answer = lambda question, before: "right"
    for opening in (completion(None, "length"), completion("", "length"), completion(None, "content_filter")):
        server.requests.clear()
        plain = server.reply
        server.reply = lambda body, plain=plain, opening=opening: (
            plain(body) if body is None or body["messages"][0]["content"][-1]["text"] != "Hello" else (200, opening)
        )
        assert [reply.text for reply in EndpointModel(server.url).answers(EXAMPLES[1:2])] == ["right"]
        server.reply = plain


def test_cut_off_answers_are_told_and_asked_again(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "cache"))
    server.answer = lambda question, before: (
        (200, completion("<think>Okay", "length")) if question == "hard" else "<think>Okay</think>\na florist"
    )
    data = tmp_path / "people.jsonl"
    data.write_text("".join(json.dumps({"question": q, "answer": "a florist"}) + "\n" for q in ("easy", "hard")))
    command = ("evaluate", "--endpoint", server.url, "--data", data)
    for asked in (["easy", "hard"], ["hard"]):
        server.requests.clear()
        assert run(*command) == 0
        told = " ".join("".join(capsys.readouterr()).split())
        assert "1 of 2 answers were cut off inside the model's thought" in told
        assert "1 of 2 answers of people were cut off and are not in the scores" in told
        assert "--thought-tokens" in told
        assert sorted(server.questions) == asked
    server.requests.clear()
    assert run(*command, "--thought-tokens", 100) == 0  # other answers: nothing is taken from the shorter run
    assert sorted(server.questions) == ["easy", "hard"]
    assert run("evaluate", "toy:vanilla", "--data", data, "--thought-tokens", 5) == 2
    assert "add --endpoint URL" in capsys.readouterr().err


def test_answers_that_are_all_as_long_as_allowed_are_told(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "people.jsonl"
    data.write_text("".join(json.dumps({"question": f"Q{q}", "answer": "A"}) + "\n" for q in range(4)))
    for long, told in ((2, False), (3, True)):
        server.answer = lambda question, before, long=long: (
            200,
            completion("Okay, the user", "length" if question in [f"Q{row}" for row in range(long)] else "stop"),
        )
        assert run("evaluate", "--endpoint", server.url, "--data", data) == 0
        assert ("3 of 4 answers are as long as was allowed" in " ".join(capsys.readouterr().err.split())) == told


def refusing(server, names):
    """A server that takes the longest answer by these names only; notes by which one it came."""
    plain = server.reply
    seen = []

    def reply(body):
        if body is not None:
            seen.extend(name for name in ("max_tokens", "max_completion_tokens") if name in body)
            if seen[-1] not in names:
                return 400, {"error": {"message": f"'{seen[-1]}' is not supported, use '{names[0]}'."}}
        return plain(body)

    return reply, seen


def test_the_longest_answer_is_named_as_the_server_wants_it(server, monkeypatch):
    reply, seen = refusing(server, ["max_completion_tokens"])
    monkeypatch.setattr(server, "reply", reply)
    replies = EndpointModel(server.url).answers(EXAMPLES[1:3])
    assert [found.text for found in replies] == ["answer to Where?", "answer to Who is this?"]
    assert seen == ["max_tokens"] + ["max_completion_tokens"] * 3
    assert server.requests[-1]["max_completion_tokens"] == 50


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ("max_tokens is too large", "max_completion_tokens is unknown", "max_tokens is too large"),
        ("max_tokens: use max_completion_tokens", "no access to this model", "no access to this model"),
        ("max_tokens is not supported", "temperature must be 1", "temperature must be 1"),
        ("the prompt is too long", "never asked", "the prompt is too long"),
    ],
)
def test_the_refusal_that_says_what_is_wrong_is_told(server, monkeypatch, first, second, told):
    plain = server.reply

    def reply(body):
        if body is None:
            return plain(body)
        return 400, {"error": {"message": second if "max_completion_tokens" in body else first}}

    monkeypatch.setattr(server, "reply", reply)
    assert told in refusal(server.url)


def test_passing_trouble_is_repeated_within_a_bound(server):
    trouble = {"once": 1, "twice": 2}
    server.answer = lambda question, before: (503, {}) if before < trouble.get(question, 99) else "at last"
    examples = [Example(question, "at last") for question in ("once", "twice", "always")]
    replies = EndpointModel(server.url, retries=1).answers(examples)
    assert [reply.text for reply in replies] == ["at last", "", ""]
    assert [server.questions.count(question) for question in ("once", "twice", "always")] == [2, 2, 2]
    server.requests.clear()
    replies = EndpointModel(server.url, retries=2).answers(examples)
    assert [reply.text for reply in replies] == ["at last", "at last", ""]
    assert replies[2].error == "the server gave no answer: HTTP 503: {}"


def test_an_answer_that_takes_too_long_fails(server):
    late = threading.Event()
    server.answer = lambda question, before: "too late" if question == "slow" and late.wait(5) else "in time"
    replies = EndpointModel(server.url, retries=0, timeout=0.3).answers([Example("slow", "A"), Example("fast", "A")])
    late.set()
    assert replies == [Reply(error="the server gave no answer: Request timed out."), Reply("in time")]


@pytest.mark.parametrize("in_flight", [1, 3])
def test_no_more_requests_than_allowed_are_in_flight(server, in_flight):
    together = threading.Barrier(in_flight)

    def answer(question, before):
        together.wait(5)  # breaks, and fails the test, unless as many as allowed are in flight
        return question

    server.answer = answer
    examples = [Example(f"Q{index}", "A") for index in range(6)]
    replies = EndpointModel(server.url, in_flight=in_flight).answers(examples)
    assert [reply.text for reply in replies] == [example.question for example in examples]
    assert server.largest_at_once == in_flight


def test_the_key_is_sent(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for given in (None, "given"):
        EndpointModel(server.url, api_key=given).check()
    monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
    EndpointModel(server.url).check()
    assert server.keys == ["Bearer none", "Bearer given", "Bearer from the environment"]


def refusal(url, model=None, examples=EXAMPLES, **options):
    with pytest.raises(UserError) as refused:
        evaluate_endpoint(EndpointModel(url, model, retries=0), {"file": examples}, **options)
    return str(refused.value)


def test_a_server_that_is_not_there(tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    for model in (None, "served"):
        found = refusal(url, model)
        assert f"There is no server at {url}" in found
        assert "Connection refused" in found
        assert "vllm serve MODEL" in found
    (tmp_path / "data.jsonl").write_text('{"question": "Q", "answer": "A"}')
    assert run("evaluate", "--endpoint", url, "--data", tmp_path / "data.jsonl") == 2
    assert f"There is no server at {url}" in capsys.readouterr().err


def test_a_wrong_url(server):
    for model in (None, "served"):
        found = refusal(server.url.removesuffix("/v1"), model)
        assert "HTTP 404" in found
        assert "most end in /v1" in found
    for url in ("localhost:8000/v1", "ftp://localhost/v1", "http://", "toy:vanilla"):
        with pytest.raises(UserError, match="not the URL of a server"):
            EndpointModel(url)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((404, {"error": {"message": "The model `nope` does not exist."}}), "The model `nope` does not exist"),
        ((401, {"error": {"message": "a key is needed"}}), "a key is needed"),
        ((500, "Internal Server Error"), "HTTP 500: Internal Server Error"),
        ((200, "<html>A router</html>"), "no answer in the reply: <html>A router</html>"),
        ((200, "{not json"), "no answer in the reply: {not json"),
    ],
)
def test_a_server_that_refuses_the_opening_question(server, monkeypatch, reply, words):
    monkeypatch.setattr(server, "reply", lambda body, plain=server.reply: plain(None) if body is None else reply)
    found = refusal(server.url, "nope")
    assert "does not answer questions to 'nope'" in found
    assert words in found
    assert "the server lists served" in found
    server.models = (500, "no list")
    assert "lists" not in refusal(server.url, "nope")


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ([], "0 models"),
        (["first", "second"], "2 models: first, second"),
        ((500, "no list"), "HTTP 500: no list"),
        ((200, "{not json"), "no list of models in the reply: {not json"),
        ((200, "<html>A router</html>"), "no list of models in the reply: <html>A router</html>"),
    ],
)
def test_a_model_must_be_named_unless_there_is_just_one(server, models, words):
    server.models = models
    found = refusal(server.url)
    assert words in found
    assert "--served-model" in found
    assert [reply.text for reply in EndpointModel(server.url, "second").answers(EXAMPLES[1:2])] == ["answer to Where?"]
    assert server.requests[-1]["model"] == "second"


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "no examples in file"),
        ([Example("Q", " ", identifier="file:9")], "file:9: the answer is empty"),
        ([Example("\ud83d", "A", identifier="file:9")], "file:9: the question is not valid Unicode"),
        ([Example("Q", "A", (b"",), "file:9")], "file:9: an image cannot be read"),
    ],
)
def test_data_errors_come_before_the_first_request(server, examples, message):
    assert message in refusal(server.url, examples=examples)
    assert server.requests == []


def test_an_answer_needs_a_token(server):
    assert "max_new_tokens must be at least 1" in refusal(server.url, max_new_tokens=0)
    with pytest.raises(UserError, match="an image cannot be read"):
        EndpointModel(server.url).answers([DAMAGED])


def test_the_package_openai_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"kvw\[endpoint\]"):
        EndpointModel("http://localhost/v1")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), ("There is no model to ask", "--endpoint")),
        (("toy:vanilla", "--served-model", "x"), ("--served-model", "add --endpoint URL")),
        (("toy:vanilla", "--endpoint", "http://h/v1"), ("MODEL cannot be combined", "toy:vanilla", "--served-model")),
        (("--endpoint", "http://h/v1", "--edit", "e.safetensors"), ("--edit cannot be combined", "kvw apply")),
        (("--endpoint", "http://h/v1", "--device", "cpu"), ("--device cannot be combined", "start the server")),
        (("--endpoint", "http://h/v1", "--quantise", "8bit"), ("--quantise cannot be combined", "start the server")),
        (("--endpoint", "http://h/v1", "--value-matrices", "a.*.b"), ("--value-matrices cannot be combined", "leave")),
    ],
)
def test_options_that_do_not_go_together(tmp_path, capsys, more, words):
    (tmp_path / "data.jsonl").write_text('{"question": "Q", "answer": "A"}')
    assert run("evaluate", *more, "--data", tmp_path / "data.jsonl") == 2
    error = capsys.readouterr().err
    for word in words:
        assert word in error, error
