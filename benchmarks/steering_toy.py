"""What steering reaches on the toy world: one setting for all tasks, chosen on one half of the people and scored on the
other; whom the gate takes for forget people; weakening only where it says so; and what steering costs per token.

usage: python benchmarks/steering_toy.py [--examples 120] [--ratios 0.2 0.3 0.5] [--strengths 1 2 3 4 6] [--turns 15]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from kvw.cli.options import find_model
from kvw.data import Example, prepare, prompt_batch, read_examples, to_model
from kvw.data.batches import answer_batch, image_groups
from kvw.edits import Condition, SteeringEdit, attach_where
from kvw.evaluation.generation import generate_answers
from kvw.evaluation.metrics import exact_match
from kvw.measuring.engine import measure
from kvw.methods.kvw.weaken import one_shot
from kvw.methods.steering.diagnosis import Diagnosis, diagnose
from kvw.methods.steering.direction import pairs_of, refusal_pairs
from kvw.methods.steering.gate_plot import plot_gates
from kvw.methods.steering.method import steering
from kvw.methods.steering.settings import SteeringSettings
from kvw.models.loading import load_model, load_processor
from kvw.quiet import quiet_libraries
from kvw.toy import World, write_world
from kvw.toy.world import LONGEST_ANSWER

COLUMNS = (
    "forget",
    "forget_new_photos",
    "forget_new_phrasings",
    "forget_text",
    "retain",
    "retain_new_photos",
    "unused",
    "unused_new_photos",
    "unused_text",
    "general",
)
FORGET_TASKS = COLUMNS[:4]
KEPT_TASKS = ("retain_new_photos", "general")
KEPT = 0.9
"""Of the original score; the choice is among settings that keep this much in every kept task."""
PAIRS = ("refusals", "strangers")
GAMMAS = (0.1, 0.4, 1.6)
TOKENS = 64

Splits = Mapping[str, Sequence[Example]]


def halves(examples: Splits, count: int) -> tuple[dict[str, list[Example]], dict[str, list[Example]]]:
    """Every split in two: by people, and shapes by their order."""
    first: dict[str, list[Example]] = {}
    second: dict[str, list[Example]] = {}
    for name in COLUMNS:
        drawn = Random(0).sample(list(examples[name]), min(count, len(examples[name])))
        people = sorted({example.metadata["subject"] for example in drawn})
        chosen = set(people[::2])
        single = len(people) == 1
        for place, example in enumerate(drawn):
            ours = place % 2 == 0 if single else example.metadata["subject"] in chosen
            (first if ours else second).setdefault(name, []).append(example)
    return first, second


class Bench:
    """A model, and how it is scored."""

    def __init__(self) -> None:
        checkpoint = find_model("toy:vanilla")
        self.model, self.processor = load_model(checkpoint), load_processor(checkpoint)

    def scores(self, splits: Splits, attachment: AbstractContextManager[Any] | None = None) -> dict[str, float]:
        """Exact match by split."""
        with attachment or nullcontext():
            return {name: self.exact(examples) for name, examples in splits.items()}

    def exact(self, examples: Sequence[Example]) -> float:
        """Share of answers that are the reference."""
        prepared = prepare(examples, self.processor)
        answers = generate_answers(self.model, self.processor, prepared, max_new_tokens=LONGEST_ANSWER)
        return statistics.mean(
            exact_match(answer, example.answer) for answer, example in zip(answers, examples, strict=True)
        )

    def batches(self, examples: Sequence[Example]) -> list[dict[str, Any]]:
        """Teacher-forced batches, for KVW's statistics."""
        prepared = prepare(examples, self.processor)
        return [
            answer_batch([prepared[place] for place in group[start : start + 16]], self.processor)
            for group in image_groups(prepared)
            for start in range(0, len(group), 16)
        ]


def show(name: str, scores: Mapping[str, float]) -> None:
    """One row of the table."""
    print(f"| {name} | " + " | ".join(f"{scores[split]:.3f}" for split in COLUMNS) + " |", flush=True)


def chosen_settings(
    bench: Bench, edits: Mapping[str, SteeringEdit], strengths: Sequence[float], validation: Splits
) -> tuple[str, float]:
    """The edit and the strength that forget most among those that keep enough."""
    splits = {name: validation[name] for name in (*FORGET_TASKS, *KEPT_TASKS)}
    original = bench.scores(splits)
    best: tuple[float, str, float] | None = None
    for name, edit in edits.items():
        for strength in strengths:
            found = bench.scores(splits, edit.scaled(strength / edit.strength).attach(bench.model))
            forgotten = statistics.mean(found[task] for task in FORGET_TASKS)
            kept = min(found[task] / original[task] for task in KEPT_TASKS)
            print(f"- {name}, strength {strength:g}: forget {forgotten:.3f}, kept at least {kept:.3f}", flush=True)
            if kept >= KEPT and (best is None or forgotten < best[0]):
                best = (forgotten, name, strength)
    if best is None:
        raise SystemExit("no setting keeps enough; try smaller strengths")
    return best[1], best[2]


def show_gates(diagnosis: Diagnosis) -> None:
    """Mean gates, and how well they tell forget people on new photos from others, together and layer by layer."""
    numbers = list(diagnosis.gates["forget_new_photos"])
    print("\n| set | mean gate | AUC of forget new photos against it |" + "".join(f" layer {n} |" for n in numbers))
    print("|---|---:|---:|" + "---:|" * len(numbers))
    for name in diagnosis.gates:
        cells = [f"{float(diagnosis.mean_gates(name).mean()):.2f}"]
        if name not in FORGET_TASKS:
            cells += [f"{diagnosis.auc(name, forget='forget_new_photos', layer=n):.3f}" for n in (None, *numbers)]
        cells += [""] * (len(numbers) + 2 - len(cells))
        print(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    others = {name: gates for name, gates in diagnosis.gates.items() if name not in FORGET_TASKS}
    judged = Diagnosis({**others, "forget_new_photos": diagnosis.gates["forget_new_photos"]})
    for warning in judged.warnings(forget="forget_new_photos"):
        print(f"- {warning}")


def show_conditional(bench: Bench, edit: SteeringEdit, examples: Splits, test: Splits) -> None:
    """KVW of all samples beside KVW of those that the gate of the first steered layer picks."""
    layer = min(edit.steers)
    forget, retain = (
        measure(bench.model, bench.batches(examples[name]), layers=(layer, 5)) for name in ("forget", "retain")
    )
    condition = Condition.of(edit, layer)
    for gamma in GAMMAS:
        gates = one_shot(forget, retain, gamma=gamma, steps=144)
        show(f"KVW, layers {layer} to 5, gamma {gamma:g}", bench.scores(test, gates.attach(bench.model)))
        attached = attach_where(gates, bench.model, condition)
        show(f"the same where a . h > 0.5 in layer {layer}", bench.scores(test, attached))


def show_cost(bench: Bench, edit: SteeringEdit, examples: Sequence[Example], turns: int) -> None:
    """CPU time of generating with the edit by that without it, in turns."""
    for rows in (1, 8):
        batch = to_model(prompt_batch(prepare(examples[:rows], bench.processor), bench.processor), bench.model)

        def seconds(attachment: AbstractContextManager[Any], batch: dict[str, Any] = batch, rows: int = rows) -> float:
            with attachment:
                start = time.process_time()
                bench.model.generate(  # type: ignore[operator]
                    **batch, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False
                )
                return (time.process_time() - start) / TOKENS / rows

        seconds(nullcontext())
        for name, one in (
            ("prompt steered", edit),
            ("decoding, too", SteeringEdit(edit.steers, edit.strength, decoding=True)),
        ):
            pairs = [(seconds(nullcontext()), seconds(one.attach(bench.model))) for _ in range(turns)]
            ratio = statistics.median(steered / plain for plain, steered in pairs)
            plain = statistics.median(plain for plain, _ in pairs)
            print(
                f"{rows} rows, {TOKENS} tokens each, {name}: {ratio:.3f} of the plain model's time "
                f"(median of {turns} turns), {1e3 * plain:.2f} ms per token without"
            )


def main() -> None:
    """Make edits, choose, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=120, help="per split, both halves together")
    parser.add_argument("--ratios", type=float, nargs="+", default=(0.2, 0.3, 0.5))
    parser.add_argument("--pairs", nargs="+", default=PAIRS, choices=PAIRS)
    parser.add_argument("--strengths", type=float, nargs="+", default=(1, 2, 3, 4, 6))
    parser.add_argument("--layers", type=int, nargs=2, default=(2, 5), help="first and last")
    parser.add_argument("--turns", type=int, default=15, help="of timing")
    parser.add_argument("--plot", type=Path, help="PNG file for the overlap of the gates")
    arguments = parser.parse_args()
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        examples = {name: read_examples(file) for name, file in write_world(World(), Path(folder) / "world").items()}
        # People whom the model has never seen: how it answers when it does not know somebody.
        strangers = read_examples(write_world(World(seed=1), Path(folder) / "strangers")["unused"])
        bench = Bench()
        validation, test = halves(examples, arguments.examples)
        settings = SteeringSettings(layers=tuple(arguments.layers), strength=1.0)
        known = {
            "refusals": refusal_pairs(examples["forget"], bench.processor),
            "strangers": pairs_of(examples["forget"], strangers, bench.processor),
        }
        sources = {name: known[name] for name in arguments.pairs}
        edits = {
            f"{name}, ratio {ratio:g}": steering(
                bench.model,
                examples["forget"],
                examples["retain"],
                replace(settings, ratio=ratio),
                processor=bench.processor,
                pairs=pairs,
            )
            for name, pairs in sources.items()
            for ratio in arguments.ratios
        }
        print("On the half of the people that settings are chosen on:\n")
        name, strength = chosen_settings(bench, edits, arguments.strengths, validation)
        edit = edits[name].scaled(strength)
        print(f"\nChosen: {name}, strength {strength:g}. On the other half of the people:\n")
        print("| | " + " | ".join(column.replace("_", " ") for column in COLUMNS) + " |")
        print("|---|" + "---:|" * len(COLUMNS))
        show("original", bench.scores(test))
        show(f"steering, {name}, strength {strength:g}", bench.scores(test, edit.attach(bench.model)))
        show_conditional(bench, edit, examples, test)
        diagnosis = diagnose(edit, bench.model, bench.processor, {split: test[split] for split in COLUMNS})
        show_gates(diagnosis)
        if arguments.plot:
            plot_gates(diagnosis, arguments.plot, forget="forget_new_photos")
        print()
        show_cost(bench, edit, test["forget"], arguments.turns)


if __name__ == "__main__":
    main()
