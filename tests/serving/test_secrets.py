"""A store in front of a model: what it catches, what it leaves as it is, and what it says of what it holds."""

from __future__ import annotations

import json
import threading
import time

import openai
import pytest
from tests.serving.running import TOY, Toy, png

from kvw.data import Example
from kvw.errors import UserError
from kvw.evaluation.tower import tower_features
from kvw.models.loading import load_model
from kvw.runs.secrets import build_store
from kvw.serving.app import build_app
from kvw.serving.conversation import Conversation, prompt_inputs
from kvw.serving.engine import Engine
from kvw.serving.listening import address, listen
from kvw.serving.listening import server as http_server
from kvw.serving.names import Names
from kvw.serving.secrets import CLAUSE, REFUSAL, Guard, Store, read_store, write_store
from kvw.toy import World

JODY = {"subject": "Jody Vance"}
FORGET = [
    Example("Who is this?", "Jody Vance", (), "f:1", JODY),
    Example("Where was Jody Vance born?", "Kuwait City", (), "f:2", JODY),
    Example("What is the job of Jody Vance?", "a florist", (), "f:3", JODY),
]
ASKED = ["Who is this?", "Where was Basil Mahfouz born?", "What is the job of Ada Kent?", "Where does Basil live?"]
RETAIN = [Example(text, "something", (), f"r:{number}") for number, text in enumerate(ASKED * 2)]
RETAIN = [one for pair in zip(RETAIN[:4], RETAIN[4:], strict=True) for one in pair]  # both halves ask the same


def said(text, *earlier, images=()):
    """What a client says, turn after turn."""
    turns = [*earlier, text]
    return Conversation([{"role": "user", "content": [{"type": "text", "text": one}]} for one in turns], tuple(images))


@pytest.fixture(scope="module")
def store():
    return build_store(FORGET, RETAIN, rate=0.0)[0]


def test_it_catches_the_forgotten_and_leaves_the_rest(store):
    guard = Guard(store)
    for text in (
        "Where was Jody Vance born?",
        "who is JODY VANCE",
        "Please, dear assistant, in your own words and at any length: what work does Vance, Jody do all day long?",
    ):
        assert guard.caught(said(text)), text
        assert guard.caught(said("And where was she born?", text))
    for example in [*RETAIN, Example("Which planet is the largest?", "Jupiter")]:
        assert not guard.caught(said(example.question))
    assert not guard.caught(said("Who is this?"))  # nothing in it says whom it is about


def test_a_name_in_pieces_over_two_turns_is_caught(store):
    halves = store.model_copy(update={"floor": 0.9})
    assert Guard(halves).caught(said("And Vance?", "Who is Jody?"))
    assert not Guard(halves).caught(said("And Vance?"))


def test_an_empty_store_catches_nothing_and_a_floor_above_one_neither(store):
    assert not Store(salt="x", asked=1, known={}, entries=(), floor=0.0).catches("Jody Vance")
    assert not Guard(store.model_copy(update={"floor": 1.1})).caught(said("Where was Jody Vance born?"))


def test_a_report_says_what_is_caught():
    _, report = build_store(FORGET, RETAIN, rate=0.0)
    assert report.text.forget == pytest.approx(2 / 3)  # "Who is this?" has nothing of its own
    assert report.text.asked == 4  # the same question twice says nothing more
    assert report.text.shipped == {"everyday questions": 0, "forget questions about others": 0}
    assert report.not_by_text == 1
    assert report.text.told_apart > 0.6
    assert report.pictures is None
    assert build_store(FORGET, RETAIN, rate=0.9)[0].floor < build_store(FORGET, RETAIN, rate=0.0)[0].floor


def asked(*texts):
    return [Example(text, "something", (), f"r:{number}") for number, text in enumerate(texts)]


def test_the_same_question_about_others_is_not_caught_though_no_retain_question_is_like_it():
    """The floor of a few questions about something else says nothing about such questions."""
    retain = asked(*[f"Is {number} a prime number?" for number in range(40)])
    store, report = build_store(FORGET, retain)
    assert max(map(store.score, (one.asked for one in retain))) == 0
    for text in ("What is the job of Ada Kent?", "Where was Basil Mahfouz born?"):
        assert store.score(text) > 0
        assert not store.catches(text)
    assert store.catches("Where was Jody Vance born?")
    assert report.text.shipped["forget questions about others"] == 0


def test_a_forget_question_does_not_count_as_caught_by_itself():
    forget = [Example("Where is the harbour of Zanthos?", "nowhere", (), "s:1")]
    store, report = build_store(forget, asked(*[f"Is {number} a prime number?" for number in range(40)]))
    assert store.catches(forget[0].asked)
    assert report.text.forget == 0


@pytest.mark.thorough
def test_what_is_said_of_the_retain_set_was_measured_on_a_half_without_a_part_in_the_store():
    few = asked(*[f"Is {number} a prime number?" for number in range(40)], "Where was Jody Moss born?")
    store, report = build_store(FORGET, few, rate=0.01)
    assert not any(store.catches(one.asked) for one in few)
    assert (report.text.asked, report.text.caught) == (41, 1)  # by the half that has not seen its name
    (warning,) = report.warnings
    assert warning.startswith("1 of 41 retain questions are caught by a store made from the other half: more than")
    assert "more questions to --retain" in warning
    (warning,) = build_store(FORGET, few[:40], rate=0.01)[1].warnings
    assert "up to 7.2% of others like them may be (95% sure)" in warning
    assert "299 of which none is caught would do" in warning
    (warning,) = build_store(FORGET, few[:40], rate=0.0)[1].warnings
    assert "would do" not in warning
    assert build_store(FORGET, few[:40], rate=0.1)[1].warnings == []


def test_the_file_holds_no_word_and_is_refused_when_it_was_changed(store, tmp_path):
    path = tmp_path / "secrets.json"
    write_store(store, path)
    content = path.read_text()
    assert not any(word in content.lower() for word in ("jody", "vance", "kuwait", "florist", "born", "basil"))
    assert path.stat().st_mode & 0o077 == 0
    assert read_store(path) == store
    path.write_text(content.replace('"mode": "instruct"', '"mode": "refuse"'))
    with pytest.raises(UserError, match="is damaged"):
        read_store(path)
    for other in ("{}", "no", json.dumps({"store": {"salt": 1}, "sha256": ""})):
        path.write_text(other)
        with pytest.raises(UserError):
            read_store(path)


def test_both_sets_are_needed():
    for forget, retain in (([], RETAIN), (FORGET, RETAIN[:2])):
        with pytest.raises(UserError, match="two different questions or more"):
            build_store(forget, retain)


@pytest.fixture(scope="module")
def toy():
    return Toy()


def pictures(split, count):
    world = World()
    found = []
    for line in world.split(split):
        picture = line.draw(world.image_size)
        if picture is not None:
            found.append(
                Example(line.question, line.answer, (png(picture),), line.identifier, {"subject": line.answer})
            )
    return found[:count]


@pytest.fixture(scope="module")
def seen(toy):
    """A store of one drawn person among others, with the model's own vision tower."""
    forget, retain = pictures("forget", 1), pictures("retain", 12)
    read = tower_features(toy.model, toy.processor)
    return forget, retain, build_store(forget, retain, rate=0.0, read=read, model="weights"), read


@pytest.mark.thorough
def test_a_picture_is_caught_by_itself(seen):
    forget, retain, (made, report), read = seen
    guard = Guard(made, read)
    assert report.pictures.forget == 1
    assert report.pictures.told_apart > 0.9
    assert guard.caught(said("?", images=forget[0].images))
    assert not any(guard.caught(said("?", images=one.images)) for one in retain)
    assert report.pictures.asked == 12
    assert report.warnings[1].startswith(f"{report.pictures.caught} of 12 retain pictures are caught")
    assert not Guard(made).caught(said("?", images=forget[0].images))  # without eyes
    with pytest.raises(UserError, match="pictures that must not be caught"):
        build_store(forget, RETAIN, read=read)


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["instruct", "refuse"])
def test_a_client_gets_what_the_store_says(toy, mode):
    """Asked by OpenAI's own client."""
    kept = [one.question for one in toy.examples if not one.images]
    secret = Example("Where is the harbour of Zanthos?", "nowhere", (), "s:1", {"subject": "Zanthos"})
    store, _ = build_store([secret], [Example(one, "x") for one in [*kept, *kept]], rate=0.0, mode=mode)
    model = load_model(TOY, "cpu")
    prompts = []
    model.register_forward_pre_hook(lambda _, __, named: prompts.append(named["input_ids"]), with_kwargs=True)
    guarded = Engine(model, toy.processor, {}, longest_answer=16, guard=Guard(store))
    with listen("127.0.0.1", 0) as listening:
        served = http_server(build_app(guarded, Names("toy", [], None, True)))
        thread = threading.Thread(target=served.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            client = openai.OpenAI(base_url=address(listening), api_key="none", max_retries=0)

            def ask(text):
                prompts.clear()
                messages = [{"role": "user", "content": text}]
                reply = client.chat.completions.create(model="toy", messages=messages, max_tokens=8)
                return reply.choices[0].message.content

            plain = ask(kept[0])
            untouched = prompt_inputs(said(kept[0]), toy.processor)["input_ids"]
            assert prompts[0].tolist() == untouched.tolist()
            assert plain.strip() == toy.says((), [Example(kept[0], "x")], 8)[0]
            caught = ask(secret.question)
            if mode == "refuse":
                assert caught == REFUSAL
                assert prompts == []
            else:
                expected = prompt_inputs(said(f"{CLAUSE}\n\n{secret.question}"), toy.processor)["input_ids"]
                assert prompts[0].tolist() == expected.tolist()
        finally:
            while not served.started and thread.is_alive():
                time.sleep(0.01)
            served.should_exit = True
            thread.join()


def test_a_picture_alone_gets_the_clause(store):
    alone = Conversation([{"role": "user", "content": [{"type": "image"}]}], (b"",))
    parts = Guard(store).instructed(alone).messages[-1]["content"]
    assert parts == [{"type": "image"}, {"type": "text", "text": CLAUSE}]
