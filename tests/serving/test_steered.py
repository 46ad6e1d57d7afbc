"""A running server with a steering edit and with gates under a condition, each for the requests that name it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from tests.serving.running import Toy, png, running, until
from tests.serving.test_server import shown

import kvw
from kvw.data import Example
from kvw.edits import Condition, ConditionalGateEdit, GateEdit, load_edit
from kvw.methods.steering.method import steering
from kvw.methods.steering.settings import SteeringSettings
from kvw.toy import World

pytestmark = pytest.mark.thorough


def drawn(split, count):
    world = World()
    found = []
    for line in world.split(split)[:count]:
        picture = line.draw(world.image_size)
        found.append(Example(line.question, line.answer, (png(picture),) if picture else (), line.identifier))
    return found


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The toy model with edits as they come out of their files."""
    toy, folder = Toy(), tmp_path_factory.mktemp("edits")
    forget, retain = drawn("forget", 6), drawn("retain", 10)
    steered = steering(
        toy.model, forget, retain, SteeringSettings(layers=(1, 5), strength=6.0), processor=toy.processor
    )
    # The gates are chance, as those of the other edits; who they are for is not.
    gates = {key: 4 * value for key, value in toy.edits["alice"].log_gates.items() if key.layer >= 1}
    picked = ConditionalGateEdit(GateEdit(gates), Condition.of(steered, 1))
    for name, edit in (("steered", steered), ("picked", picked)):
        edit.save(folder / f"{name}.safetensors")
        toy.edits[name] = load_edit(folder / f"{name}.safetensors")
    toy.examples = [*forget[:3], *retain[:2], *drawn("retain_text", 1)]
    return toy


@pytest.fixture(scope="module")
def server(toy):
    with running(toy, allow_plain=True) as found:
        yield found


def asked(server, name, example, **options):
    parts = [*map(shown, example.images), {"type": "text", "text": example.question}]
    return server.client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": parts}], max_tokens=16, **options
    )


def test_one_name_is_steered_and_the_other_is_not(toy, server):
    assert [model.id for model in server.client.models.list()] == ["alice", "bob", "steered", "picked", "none"]
    chains = {"none": (), "steered": ("steered",), "picked": ("picked",), "steered+alice": ("steered", "alice")}
    said = {name: toy.says(edits, toy.examples) for name, edits in chains.items()}
    for number, example in enumerate(toy.examples):
        for name, wanted in said.items():
            assert asked(server, name, example).choices[0].message.content.strip() == wanted[number]
    assert said["none"][:3] == [example.answer for example in toy.examples[:3]]
    for name in ("steered", "picked"):
        assert said[name][:3] != said["none"][:3]
        assert said[name][3:5] == said["none"][3:5]
    assert said["steered+alice"] != said["steered"]


def test_a_steered_stream_and_a_plain_one_at_the_same_time(toy, server):
    example = toy.examples[0]
    wanted = {name: toy.says(edits, [example])[0] for name, edits in (("none", ()), ("steered", ("steered",)))}
    assert wanted["none"] != wanted["steered"]
    together = threading.Barrier(2)

    def tenant(name):
        found = []
        for _ in range(4):
            together.wait(30)
            chunks = asked(server, name, example, stream=True)
            found.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks).strip())
        return found

    with ThreadPoolExecutor(2) as pool:
        for name, found in zip(wanted, pool.map(tenant, wanted), strict=True):
            assert found == [wanted[name]] * 4


def test_the_model_is_plain_again_after_a_steered_request(toy, server):
    example = toy.examples[0]
    asked(server, "steered", example)

    def is_plain():
        return "generate" not in server.model.__dict__ and not any(
            module._forward_pre_hooks for module in server.model.modules()
        )

    until(is_plain)  # the answer is there a moment before
    assert is_plain()


def test_a_client_cannot_ask_for_it_under_a_wrong_name(server):
    with pytest.raises(openai.NotFoundError, match="Did you mean 'steered'"):
        server.ask("stered", "Who?")


def test_the_edit_of_another_model_is_refused_before_anybody_asks(toy, llava):
    for name in ("steered", "picked"):
        with pytest.raises(kvw.UserError, match="does not fit this Llava"):
            toy.edits[name].check_model(llava)
