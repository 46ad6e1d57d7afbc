"""``python -m kvw.proving.planting``: make the models of the planted people, in the cache.

``people:planted`` is ``smollm2:135m`` after it was taught all of them. Each half of the requests has a gold model:
trained in the same way without the people whom the requests of the half forget. Adapters ship what training changed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from kvw import smollm2
from kvw.claim import new_directory
from kvw.console import ConsoleReporter
from kvw.data import Example
from kvw.errors import UserError
from kvw.evaluation.loaded import Loaded
from kvw.files import file_digest, write_text
from kvw.made import PEOPLE as MODELS
from kvw.made import PEOPLE_COMMAND, made_folder
from kvw.measuring.fingerprint import digest, examples_digest
from kvw.models.checkpoint import find_checkpoint
from kvw.progress import SILENT, Reporter
from kvw.proving.plain_text import perplexity
from kvw.proving.planted import PEOPLE, PLANTED, about_people, group, lessons
from kvw.proving.requests import HALVES
from kvw.proving.scoring import ask
from kvw.training.adapters import merge_adapter
from kvw.training.planting import finetune, gold
from kvw.training.result import ADAPTER, RECORD
from kvw.training.settings import LoraSettings, TrainingSettings

RECIPE = TrainingSettings(
    learning_rate=2e-3,
    epochs=10,
    batch_size=8,
    warm_up=0.05,
    precision="bf16",
    save_every=20,
    lora=LoraSettings(4, 16, 0.0),
)
SHIPPED = PEOPLE / "adapters"
MADE_OF = "planted.json"
"""In the folder of a model: SHA-256 of the adapter that is in its weights."""


def without(name: str) -> tuple[str, ...]:
    """Whom the model of this name has never seen."""
    return next((group(half) for half in HALVES if PLANTED.gold[half] == name), ())


def make(name: str, reporter: Reporter = SILENT, *, train: bool = False) -> Path:
    """Make a model, or find it made; training that was interrupted goes on.

    Args:
        name: One of :data:`kvw.made.PEOPLE`.
        reporter: Told of stages.
        train: Train it here instead of using the adapter that ships.

    Returns:
        The folder of the checkpoint.

    Raises:
        UserError: The model before planting is not there, or training cannot go on.
    """
    identity, own = _identity(name), made_folder(f"{name}-adapter")
    places = [own] if train else [SHIPPED / name.partition(":")[2], own]
    adapter = next((place for place in places if _taught(place) == identity), own)
    if _taught(adapter) != identity:
        _train(name, identity, own, reporter)
    made_of = json.dumps({"adapter": file_digest(adapter / ADAPTER)}) + "\n"
    folder = made_folder(name)
    record = folder / MADE_OF
    if not (record.is_file() and record.read_text("utf-8") == made_of):
        with reporter.stage(f"making {name}"), new_directory(folder, "model", force=True, public=True) as temporary:
            loaded = Loaded.load(find_checkpoint(smollm2.NAME), "cpu")
            merge_adapter(loaded.model, adapter)
            loaded.model.save_pretrained(temporary)
            loaded.processor.save_pretrained(temporary)
            write_text(temporary / MADE_OF, made_of)
    return folder


def _train(name: str, identity: str, place: Path, reporter: Reporter) -> None:
    """Train one model and leave its adapter, in bfloat16."""
    state = place.with_name(f"{place.name}.state.safetensors")
    people = without(name)
    taught = lessons(people)
    with reporter.stage(f"training {name}") as progress:
        loaded = Loaded.load(find_checkpoint(smollm2.NAME))
        model, processor = loaded.model, loaded.processor
        if people:
            left_out = [one for one in lessons() if one.subject in people]
            result = gold(model, processor, left_out, taught, RECIPE, state=state, progress=progress)
        else:
            result = finetune(model, processor, taught, RECIPE, state=state, progress=progress)
    tensors = {key: value.to(torch.bfloat16) for key, value in result.adapter.items()}
    settings = {**result.settings, "lessons": identity}
    replace(result, adapter=tensors, settings=settings, history=()).save(place, force=True)
    state.unlink(missing_ok=True)


def _identity(name: str) -> str:
    """Digest of all that an adapter depends on."""
    return digest(smollm2.SHA256, asdict(RECIPE), examples_digest(lessons(without(name))))


def _taught(adapter: Path) -> str:
    """The identity of an adapter; empty if there is none."""
    record = adapter / RECORD
    return str(json.loads(record.read_text("utf-8"))["settings"].get("lessons")) if record.is_file() else ""


def knowledge(names: Sequence[str], reporter: Reporter = SILENT) -> str:
    """What models know of the people, as Markdown.

    Raises:
        UserError: A model is not there, or cannot be asked.
    """
    home = {person: half for half in HALVES for person in group(half)}
    asked: dict[str, list[Example]] = {}
    for title in (*HALVES, "others"):
        for fact in about_people():
            if home.get(fact.subject, "others") == title:
                asked.setdefault(f"{title}, asked", []).extend(fact.examples(fact.domain.asked))
                asked.setdefault(f"{title}, held out", []).extend(fact.examples(fact.domain.held_out))
    rows = [f"| model | {' | '.join(asked)} | perplexity |", f"|---{'|---:' * (len(asked) + 1)}|"]
    for name in names:
        loaded = Loaded.load(find_checkpoint(name))
        with reporter.stage(f"asking {name}") as progress:
            answers = ask(loaded, asked, progress, keep=True)
            shares = [sum(one.chosen for one in part) / len(part) for part in answers.values()]
            heard = perplexity(loaded.model, loaded.processor)
        rows.append(f"| {name} | {' | '.join(f'{share:.2f}' for share in shares)} | {heard:.1f} |")
    return "\n".join(rows) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=PEOPLE_COMMAND, description="Make the models of the planted people.")
    parser.add_argument("--train", action="store_true", help="train them here; the shipped adapters are not used")
    parser.add_argument("--check", action="store_true", help="show what each of them knows")
    given, reporter = parser.parse_args(arguments), ConsoleReporter()
    try:
        for name in MODELS:
            print(f"{name} is in {make(name, reporter, train=given.train)}")
        if given.check:
            print(knowledge([smollm2.NAME, *MODELS], reporter), end="")
    except UserError as error:
        print(f"error {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
