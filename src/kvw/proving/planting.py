"""``python -m kvw.proving.planting``: make the models of the planted people, in the cache.

``people:planted`` is ``smollm2:135m`` after it was taught people of two benchmarks. ``photos:planted`` is the same
model behind a vision tower, and knows people by their photos, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from transformers import PreTrainedModel

from kvw import smollm2
from kvw.console import ConsoleReporter
from kvw.data import Example
from kvw.data.rendering import Processor
from kvw.evaluation.loaded import Loaded
from kvw.exit_codes import program
from kvw.made import COMMAND, PEOPLE, PHOTOS
from kvw.models.checkpoint import find_checkpoint
from kvw.progress import SILENT, Reporter
from kvw.proving import planted
from kvw.proving.making import Making
from kvw.proving.photos.making import MAKING as WITH_PHOTOS
from kvw.proving.plain_text import perplexity
from kvw.proving.planted import PLANTED, about_people, group, lessons
from kvw.proving.requests import HALVES
from kvw.proving.scoring import ask
from kvw.training.settings import LoraSettings, TrainingSettings


def _text_model() -> tuple[PreTrainedModel, Processor]:
    loaded = Loaded.load(find_checkpoint(smollm2.NAME), "cpu")
    return loaded.model, loaded.processor


def _asked() -> dict[str, list[Example]]:
    home = {person: half for half in HALVES for person in group(half)}
    asked: dict[str, list[Example]] = {}
    for title in (*HALVES, "others"):
        for fact in about_people():
            if home.get(fact.subject, "others") == title:
                asked.setdefault(f"{title}, asked", []).extend(fact.examples(fact.domain.asked))
                asked.setdefault(f"{title}, held out", []).extend(fact.examples(fact.domain.held_out))
    return asked


IN_TEXT = Making(
    part=PLANTED,
    before=_text_model,
    base=lambda: smollm2.SHA256,
    lessons=lessons,
    group=group,
    recipe=TrainingSettings(
        learning_rate=2e-3,
        epochs=6,
        batch_size=8,
        warm_up=0.05,
        precision="bf16",
        save_every=20,
        lora=LoraSettings(4, 16, 0.0),
    ),
    shipped=planted.PEOPLE / "adapters",
    asked=_asked,
)
MAKINGS: dict[str, Making] = dict.fromkeys(PEOPLE, IN_TEXT) | dict.fromkeys(PHOTOS, WITH_PHOTOS)
"""How each model is made, by name."""


def knowledge(names: Sequence[str], reporter: Reporter = SILENT) -> str:
    """What models know of the people, as Markdown: shares of questions that bring the fact, and of plain text.

    Args:
        names: Models of one part, or what they were before.
        reporter: Told of stages.

    Raises:
        UserError: A model is not there, or cannot be asked.
    """
    asked = next(MAKINGS[name] for name in names if name in MAKINGS).asked()
    rows = [f"| model | {' | '.join(asked)} | perplexity |", f"|---{'|---:' * (len(asked) + 1)}|"]
    for name in names:
        loaded = Loaded.load(find_checkpoint(name))
        with reporter.stage(f"asking {name}") as progress:
            answers = ask(loaded, asked, progress, keep=True)
            shares = [sum(one.chosen for one in part) / len(part) for part in answers.values()]
            heard = perplexity(loaded.model, loaded.processor)
        rows.append(f"| {name} | {' | '.join(f'{share:.2f}' for share in shares)} | {heard:.1f} |")
    return "\n".join(rows) + "\n"


@program
def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Make the models of the planted people.")
    parser.add_argument("names", nargs="*", choices=[*MAKINGS, []], metavar="MODEL", help=", ".join(MAKINGS))
    parser.add_argument("--train", action="store_true", help="train them here; the shipped adapters are not used")
    parser.add_argument("--check", action="store_true", help="show what each of them knows")
    given, reporter = parser.parse_args(arguments), ConsoleReporter()
    names = given.names or list(MAKINGS)
    for name in names:
        print(f"{name} is in {MAKINGS[name].make(name, reporter, train=given.train)}")
    if given.check:
        for before, part in (([smollm2.NAME], PEOPLE), ([], PHOTOS)):
            if chosen := [name for name in part if name in names]:
                print(knowledge([*before, *chosen], reporter), end="")


if __name__ == "__main__":
    sys.exit(main())
