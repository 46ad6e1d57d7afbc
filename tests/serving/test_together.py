"""Requests that wait for the same edits are answered together, and each gets what it would get alone."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import contextmanager

import pytest
import torch
from tests.serving.running import Toy

from kvw.data import Example
from kvw.models.finding import find_value_matrices
from kvw.serving import engine as engine_module
from kvw.serving.conversation import Conversation
from kvw.serving.engine import Engine
from kvw.serving.generating import Decoding
from kvw.serving.refusals import Refusal


@pytest.fixture(scope="module")
def toy():
    return Toy()


@contextmanager
def counted(monkeypatch, toy, **options):
    """An engine, and how many answers each of its generations was for, with the edits."""
    sizes, plain = [], engine_module.generate

    def generate(model, tokenizer, inputs, rows, how, closing):
        assert len(inputs["input_ids"]) == len(rows)
        sizes.append(len(rows))
        plain(model, tokenizer, inputs, rows, how, closing)

    monkeypatch.setattr(engine_module, "generate", generate)
    engine = Engine(toy.model, toy.processor, toy.edits, longest_answer=16, **options)
    yield engine, sizes
    engine.close()
    assert not any(matrix.module._forward_pre_hooks for matrix in find_value_matrices(toy.model))


def said(example):
    parts = [*({"type": "image"} for _ in example.images), {"type": "text", "text": example.question}]
    return Conversation([{"role": "user", "content": parts}], tuple(example.images))


def asked(engine, requests):
    """What is answered to (names, example, decoding), all of which wait before the first is answered."""

    async def ask():
        hold = asyncio.Event()
        loop = asyncio.get_running_loop()
        held = engine._thread.submit(lambda: asyncio.run_coroutine_threadsafe(hold.wait(), loop).result())
        answers = [engine.ask(names, said(example), how) for names, example, how in requests]
        hold.set()
        await asyncio.wrap_future(held)
        return await asyncio.gather(*(answer.whole() for answer in answers), return_exceptions=True)

    return asyncio.run(ask())


@pytest.mark.thorough
def test_answers_together_are_the_answers_alone(toy, monkeypatch):
    """Mixed tenants, lengths, pictures and stop texts: each gets its own."""
    lengths = itertools.cycle((16, 3, 9))
    requests = [
        (names, example, Decoding(next(lengths), stops=stops))
        for example in toy.examples
        for names in (("alice",), ("bob",), ())
        for stops in ((), ("a",))
    ]
    with counted(monkeypatch, toy, together=1) as (engine, sizes):
        alone = asked(engine, requests)
        assert sizes == [1] * len(requests)
    with counted(monkeypatch, toy) as (engine, sizes):
        together = asked(engine, requests)
        assert sum(sizes) == len(requests)
        assert max(sizes) == 8
        assert len(sizes) <= 12
    assert together == alone
    whole = [text.strip() for (text, _), (_, _, how) in zip(together, requests, strict=True) if how == Decoding(16)]
    wanted = [toy.says(names, [example])[0] for names, example, how in requests if how == Decoding(16)]
    assert whole == wanted
    assert len(set(wanted)) > 3


@pytest.mark.thorough
def test_what_cannot_be_answered_together_is_not(toy, monkeypatch):
    text, picture = toy.examples[-1], next(example for example in toy.examples if example.images)
    text = next(example for example in toy.examples if not example.images)
    requests = [
        (("alice",), text, Decoding(2)),
        (("alice", "bob"), text, Decoding(2)),
        (("bob", "alice"), text, Decoding(2)),
        (("alice",), picture, Decoding(2)),
        (("alice",), text, Decoding(2, temperature=1.0, seed=3)),
        (("alice",), text, Decoding(2, temperature=1.0, seed=3)),
    ]
    with counted(monkeypatch, toy) as (engine, sizes):
        found = asked(engine, requests)
    assert sizes == [1] * 6
    assert found[4] == found[5]


def test_many_tokens_are_not_answered_together(toy, monkeypatch):
    monkeypatch.setattr(engine_module, "TOKENS_TOGETHER", 2 * (len(toy.question) + 16))
    requests = [(("alice",), Example(toy.question, "-"), Decoding(16))] * 5
    with counted(monkeypatch, toy) as (engine, sizes):
        found = asked(engine, requests)
    assert max(sizes) < 5
    assert sum(sizes) == 5
    assert len(set(found)) == 1


def test_a_refused_request_does_not_hold_up_the_others(toy, monkeypatch):
    good = (("alice",), Example(toy.question, "-"), Decoding(4))
    long = (("alice",), Example("Who? " * 2000, "-"), Decoding(4))
    with counted(monkeypatch, toy, longest_prompt=60) as (engine, sizes):
        first, refused, second = asked(engine, [good, long, good])
    assert sizes == [2]
    assert first == second
    assert isinstance(refused, Refusal)
    assert refused.status == 400


def test_a_failure_together_fails_nobody_else(toy, monkeypatch, caplog):
    """Memory runs out for several, and suffices for each; one of them fails alone as well."""
    questions = [toy.question, "Who is that?", "Where?"]
    lengths = []

    def hook(module, arguments, options):
        rows = len(options["input_ids"])
        lengths.append(rows)
        if rows > 1 and lengths.count(rows) == 2:  # in the middle of the answers
            raise torch.OutOfMemoryError
        if rows == 1 and len(lengths) == 3:
            raise ZeroDivisionError

    requests = [(("bob",), Example(question, "-"), Decoding(8)) for question in questions]
    handle = toy.model.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        with counted(monkeypatch, toy) as (engine, sizes):
            found = asked(engine, requests)
    finally:
        handle.remove()
    assert sizes == [3, 1, 1, 1]
    assert isinstance(found[0], ZeroDivisionError)
    wanted = [toy.says(("bob",), [Example(question, "-")], 8)[0] for question in questions]
    assert [text.strip() for text, _ in found[1:]] == wanted[1:]
    assert "each is answered by itself" in caplog.text


def test_who_leaves_in_the_middle_ends_only_their_own_answer(toy, monkeypatch):
    async def ask(engine):
        answers = [engine.ask(["alice"], said(Example(toy.question, "-")), Decoding(16)) for _ in range(3)]
        for answer in answers:
            await answer.begun()
        answers[1].give_up()
        return await answers[0].whole(), await answers[2].whole()

    with counted(monkeypatch, toy) as (engine, _):
        first, third = asyncio.run(ask(engine))
    assert first == third
    assert first[0].strip() == toy.says(["alice"], [Example(toy.question, "-")])[0]
