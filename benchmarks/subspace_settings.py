"""Which settings of subspace weakening forget and keep: exact match on the toy model, with other people to forget.

The model knows 40 people, and any four of them can be the ones to forget. Settings are compared on other draws than
the one that all tables of docs/results.md report, so that choosing a default by them takes nothing from the report.

usage: python benchmarks/subspace_settings.py [--draws 1 2] [--examples 120] [--only WORDS ...]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from kvw.cli.options import find_model
from kvw.data import Example, prepare, read_examples
from kvw.evaluation.evaluation import evaluate
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.sources import Sources
from kvw.methods.subspace.labels import Labels, labels_of
from kvw.methods.subspace.method import subspace
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.models.loading import load_model, load_processor
from kvw.quiet import quiet_libraries
from kvw.toy import World, write_world
from kvw.toy.people import Person
from kvw.toy.world import LONGEST_ANSWER

FORGOTTEN = ("forget", "forget_new_photos", "forget_new_phrasings", "forget_text")
KEPT = ("retain", "retain_text", "unused", "unused_new_photos", "unused_text", "general")
SETTINGS: dict[str, dict[str, Any]] = {
    **{f"mu {mu:g}": {"mu": mu} for mu in (0.1, 0.2, 0.3, 0.5, 1.0, 3.0)},
    **{f"FFNs alone, mu {mu:g}": {"matrices": "ffn", "mu": mu} for mu in (0.3, 0.5, 1.0, 3.0, 10.0)},
    **{f"attention alone, mu {mu:g}": {"matrices": "attention", "mu": mu} for mu in (0.3, 1.0, 3.0)},
    "exponential, 90 % null": {"gate": "exponential"},
    "exponential, median null": {"gate": "exponential", "quantile": 0.5},
    **{
        f"thresholded Wiener, median null, mu {mu:g}": {"gate": "thresholded wiener", "quantile": 0.5, "mu": mu}
        for mu in (1.0, 10.0)
    },
    **{
        f"thresholded Wiener, least tau, mu {mu:g}": {"gate": "thresholded wiener", "quantile": 1e-6, "mu": mu}
        for mu in (0.5, 1.0)
    },
    "hard, median null": {"gate": "hard", "quantile": 0.5},
    **{f"rho {rho:g}": {"shrinkage": rho} for rho in (0.03, 0.3)},
    "rho cross-validated": {"shrinkage": "cross-validated"},
    **{f"rank {rank}": {"rank": rank} for rank in (8, 16, 32)},
    **{
        f"layers {first}:{last}": {"layers": (first, last)}
        for first, last in ((0, 1), (0, 2), (0, 3), (1, 3), (1, 5), (2, 5), (3, 5))
    },
    **{f"layers 1:5, mu {mu:g}": {"layers": (1, 5), "mu": mu} for mu in (1.0, 3.0)},
    **{f"threshold 0.1, mu {mu:g}": {"threshold": 0.1, "mu": mu} for mu in (0.2, 0.5, 1.0)},
    **{
        f"layers 1:5, threshold 0.1, mu {mu:g}": {"layers": (1, 5), "threshold": 0.1, "mu": mu}
        for mu in (1.0, 3.0, 10.0)
    },
    "sequential": {"schedule": "sequential"},
    "held-out ratio 1.5": {"held_out_ratio": 1.5},
    "small gates stay": {"smallest_gate": 0.0},
    "answers alone in S": {"sources": Sources(1, 0, 0, 0)},
    "more prompt in S": {"sources": Sources(0.3, 0.4, 0.2, 0.1)},
    "more image in S": {"sources": Sources(0.3, 0.15, 0.45, 0.1)},
}
"""What differs from the defaults."""
DATA = (
    "tokens instead of means",
    "forget also by name",
    "retain also by name",
    "both also by name",
)


@dataclass(frozen=True)
class Draw(World):
    """The same world with other people to be forgotten; number 0 is the world itself."""

    number: int = 0

    @cached_property
    def groups(self) -> dict[str, list[Person]]:
        """The people to forget, to retain, and never used in unlearning."""
        if not self.number:
            return super().groups
        order = list(self.everyone)
        Random(f"draw {self.number}").shuffle(order)
        half = self.forget + (self.people - self.forget + 1) // 2
        return {"forget": order[: self.forget], "retain": order[self.forget : half], "unused": order[half:]}


class Bench:
    """One draw: its data, and scores of the model with an edit."""

    def __init__(self, number: int, examples: int, model: Any, processor: Any) -> None:
        self._model, self._processor = model, processor
        with tempfile.TemporaryDirectory() as folder:
            files = write_world(Draw(number=number), Path(folder))
            self._examples = {name: _with_bytes(read_examples(file)) for name, file in files.items()}
        # Questions by name that are given to unlearning are not asked.
        self._by_name = {}
        for name in ("forget_text", "retain_text"):
            held = self._examples[name]
            attributes = sorted({example.metadata["attribute"] for example in held})[::2]
            self._by_name[name] = [example for example in held if example.metadata["attribute"] in attributes]
            self._examples[name] = [example for example in held if example.metadata["attribute"] not in attributes]
        self._scored = {
            name: Random(0).sample(self._examples[name], min(examples, len(self._examples[name])))
            for name in (*FORGOTTEN, *KEPT)
        }
        self._batches: dict[tuple[str, bool], tuple[list[Any], Labels]] = {}

    def batches(self, name: str, by_name: bool) -> tuple[list[Any], Labels]:
        """Batches and labels of the forget or retain set, with questions by name about half of the attributes."""
        key = (name, by_name)
        if key not in self._batches:
            more = self._by_name[f"{name}_text"] if by_name else []
            examples = [*self._examples[name], *more]
            batches = LabelledBatches(prepare(examples, self._processor), self._processor, self._model)
            self._batches[key] = list(batches), labels_of([examples[place] for place in batches.order])
        return self._batches[key]

    def scores(self, name: str, values: Mapping[str, Any]) -> dict[str, float]:
        """Exact match by split."""
        forget, labels = self.batches("forget", "forget also" in name or "both also" in name)
        retain, kept = self.batches("retain", "retain also" in name or "both also" in name)
        if "tokens" in name:
            labels = Labels(None, labels.subjects)
        edit = subspace(
            self._model, forget, retain, SubspaceSettings(**values), forget_labels=labels, retain_labels=kept
        )
        with edit.attach(self._model):
            return self.original()

    def original(self) -> dict[str, float]:
        """Exact match of the model as it is."""
        found = evaluate(self._model, self._processor, self._scored, max_new_tokens=LONGEST_ANSWER).summaries
        return {split: summary.exact for split, summary in found.items()}


def _with_bytes(examples: Sequence[Example]) -> list[Example]:
    """Images in memory, so that the folder can go."""
    return [
        Example(
            e.question, e.answer, tuple(Path(str(image)).read_bytes() for image in e.images), e.identifier, e.metadata
        )
        for e in examples
    ]


def main() -> None:
    """Print one line for each setting: means over the draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--examples", type=int, default=120, help="per split")
    parser.add_argument("--only", nargs="+", help="settings whose name has one of these words")
    arguments = parser.parse_args()
    quiet_libraries()
    model, processor = load_model(find_model("toy:vanilla")), load_processor(find_model("toy:vanilla"))
    draws = [Bench(number, arguments.examples, model, processor) for number in arguments.draws]
    columns = (*FORGOTTEN, *KEPT)
    print("| | " + " | ".join(name.replace("_", " ") for name in columns) + " |")
    print("|---|" + "---:|" * len(columns))

    def show(name: str, found: Sequence[Mapping[str, float]]) -> None:
        means = [sum(scores[split] for scores in found) / len(found) for split in columns]
        print(f"| {name} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |", flush=True)

    show("original", [draw.original() for draw in draws])
    tried = SETTINGS | {name: {} for name in DATA}
    for name, values in tried.items():
        if not arguments.only or any(word in name for word in arguments.only):
            show(name, [draw.scores(name, values) for draw in draws])


if __name__ == "__main__":
    main()
