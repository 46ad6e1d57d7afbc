"""A running server of kvw's own around the toy model, and what the toy model says here."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
import torch

from kvw.data import Example, prepare
from kvw.edits import EditMetadata, GateEdit
from kvw.edits.edit import Edit
from kvw.evaluation.generation import generate_answers
from kvw.measuring.fingerprint import weights_digest
from kvw.models.finding import find_value_matrices
from kvw.models.loading import Checkpoint, load_model, load_processor
from kvw.serving.app import build_app
from kvw.serving.engine import Engine
from kvw.serving.keys import Keys
from kvw.serving.limits import DEFAULTS, Limits
from kvw.serving.listening import address, listen
from kvw.serving.listening import server as http_server
from kvw.serving.names import Names
from kvw.toy import World, checkpoint

TOY = Checkpoint(checkpoint("vanilla"), "toy:vanilla")


class Toy:
    """The toy model, its processor, two edits that change what it says, and questions that show it."""

    def __init__(self) -> None:
        self.model = load_model(TOY, "cpu")
        self.processor = load_processor(TOY)
        self.edits: dict[str, Edit] = {
            name: gates(self.model, seed, model_fingerprint=weights_digest(TOY.folder))
            for seed, name in enumerate(("alice", "bob"))
        }
        world = World()
        self.examples = []
        for line in world.split("forget")[:3] + world.split("retain_text")[:4]:
            picture = line.draw(world.image_size)
            images = (png(picture),) if picture else ()
            self.examples.append(Example(line.question, line.answer, images, line.identifier))
        self.question = next(
            example.question
            for example in self.examples
            if not example.images and len({self.says(names, [example])[0] for names in ((), ("alice",), ("bob",))}) == 3
        )

    def says(self, names: Sequence[str], examples: Sequence[Example], max_new_tokens: int = 16) -> list[str]:
        """Greedy answers here, with edits attached in this order."""
        with ExitStack() as attached:
            for name in names:
                attached.enter_context(self.edits[name].attach(self.model))
            return generate_answers(
                self.model, self.processor, prepare(examples, self.processor), max_new_tokens=max_new_tokens
            )


def gates(model: Any, seed: int, **metadata: str) -> GateEdit:
    """Random gates at every value matrix."""
    generator = torch.Generator().manual_seed(seed)
    logs = {matrix.key: -3 * torch.rand(matrix.width, generator=generator) for matrix in find_value_matrices(model)}
    return GateEdit(logs, EditMetadata(base_model="toy:vanilla", **metadata))


def png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class Running:
    """A server of a test; its model is one of its own.

    Attributes:
        model: What it serves. Tests may hook it.
        url: Where it is.
    """

    def __init__(self, model: Any, url: str) -> None:
        self.model = model
        self.url = url
        self.client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)

    def ask(self, model: str, text: str, **options: Any) -> Any:
        """One question without images."""
        return self.client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": text}], **{"max_tokens": 16, **options}
        )

    def text(self, model: str, text: str, **options: Any) -> str:
        """The answer to one question without images."""
        found: str = self.ask(model, text, **options).choices[0].message.content
        return found

    def streamed(self, model: str, text: str, **options: Any) -> str:
        """The same from a stream."""
        chunks = self.ask(model, text, stream=True, **options)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@contextmanager
def running(
    toy: Toy,
    *,
    longest_answer: int = 400,
    limits: Limits = DEFAULTS,
    keys: Path | None = None,
    audit: Path | None = None,
    **options: Any,
) -> Iterator[Running]:
    """A server in another thread; ``options`` are those of :class:`Names`."""
    model = load_model(TOY, "cpu")
    engine = Engine(
        model,
        toy.processor,
        toy.edits,
        longest_answer=longest_answer,
        longest_prompt=limits.prompt_tokens,
        together=limits.together,
    )
    names = Names("toy:vanilla", list(toy.edits), **options)
    with listen("127.0.0.1", 0) as listening:
        known = None if keys is None else Keys(keys)
        server = http_server(build_app(engine, names, limits, known, audit))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        url = address(listening)
        thread.start()
        try:
            yield Running(model, url)
        finally:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            server.should_exit = True
            thread.join()
    assert not any(module._forward_pre_hooks for module in model.modules())


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
