"""What each step of an erasure costs beside the plain forward over the same examples: ratios of CPU time, in one run.

- *retain pass*: the plain batched forward over full sequences without logits, and the plain loop of research code (one
  example at a time, logits, coefficients of every layer copied), each over what kvw takes for the same numbers.
- *generation*: tokens a second, beside transformers' own batched ``generate`` of the same prompts in the same order.
- *erase*: a whole run beside one plain batched forward over everything that it was given, plus the generation that it
  shows. First with an empty cache, then again, as every further request on a model.
- *growth*: the retain pass and the solve over more examples and with larger models of random weights.

usage: OMP_NUM_THREADS=1 python benchmarks/speed_ratios.py [pass generation erase growth] [--model MODEL] [--turns 3]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from unittest.mock import patch

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kvw.cli.options import find_model
from kvw.data import Example, Prepared, answer_batch, prompt_batch, to_model
from kvw.evaluation.generation import decoding, generate_answers
from kvw.evaluation.loaded import Loaded
from kvw.measuring.batch_sizing import batches_of, token_budget
from kvw.measuring.examples import measure_examples
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.moment_passes import measure_moments
from kvw.methods.subspace.examples import subspace_edit
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.models.finding import find_value_matrices
from kvw.proving.facts import facts
from kvw.quiet import quiet_libraries
from kvw.runs.erase import erase
from kvw.runs.material import gather_material
from kvw.runs.request import EraseRequest, read_data
from kvw.runs.task import Task
from measure_speed import plain_loop

FORGET = Path(__file__).parents[1] / "examples/smollm2/play.jsonl"
SIZES = {"0.1 B": (768, 2048, 12), "0.5 B": (1408, 3840, 18), "1.5 B": (2048, 5632, 26)}
"""Hidden and FFN width, and layers, of models with random weights."""


def short_questions(count: int) -> list[Example]:
    """So many facts of the proving ground, each asked in one way."""
    known = facts()
    chosen = known[:: max(1, len(known) // count)][:count]
    return [example for fact in chosen for example in fact.examples(fact.domain.asked[:1])]


def ordered(loaded: Loaded, prepared: Sequence[Prepared], new_tokens: int = 0) -> list[list[Prepared]]:
    """Batches of similar length, as many tokens as kvw takes."""
    lengths = [item.length + new_tokens for item in prepared]
    longest_first = sorted(range(len(prepared)), key=lambda place: -lengths[place])
    budget = token_budget(loaded.model.device)
    return [[prepared[place] for place in some] for some in batches_of(longest_first, lengths, budget)]


def plain_forward(loaded: Loaded, prepared: Sequence[Prepared]) -> None:
    """One batched forward over full sequences, without logits."""
    for some in ordered(loaded, prepared):
        batch = to_model(answer_batch(some, loaded.processor), loaded.model)
        batch.pop("labels")
        with torch.inference_mode():
            loaded.model.base_model(**batch, use_cache=False)


def forward_over(loaded: Loaded, examples: Sequence[Example]) -> None:
    """The same over examples that are rendered first."""
    plain_forward(loaded, loaded.prepare(examples))


def plain_generate(loaded: Loaded, prepared: Sequence[Prepared], new_tokens: int) -> list[str]:
    """Greedy answers by transformers' own batched generate."""
    answers = []
    for some in ordered(loaded, prepared, new_tokens):
        batch = to_model(prompt_batch(some, loaded.processor), loaded.model)
        with torch.inference_mode(), decoding(loaded.model, loaded.processor.tokenizer, new_tokens):
            produced = loaded.model.generate(  # type: ignore[operator]
                **batch, generation_config=loaded.model.generation_config
            )
        answers += loaded.processor.tokenizer.batch_decode(produced[:, batch["input_ids"].shape[1] :])
    return answers


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process, which a busy machine does not stretch as it does the clock."""
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turns(ways: dict[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """CPU seconds of every way in every turn, in an order by lot, after one turn to warm up."""
    draw = Random(0)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name in draw.sample(list(ways), len(ways)):
            took = seconds(ways[name])
            if turn:
                taken[name].append(took)
    return taken


def tell(what: str, slow: Sequence[float], fast: Sequence[float]) -> None:
    """Print the median of the ratios and their range."""
    ratios = sorted(one / other for one, other in zip(slow, fast, strict=True))
    print(f"| {what} | {statistics.median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |", flush=True)


def compare_pass(loaded: Loaded, questions: int, turns: int) -> None:
    """The retain passes of KVW and of subspace weakening beside the plain forward and the plain loop."""
    prepared = loaded.prepare(short_questions(questions))
    model, processor, matrices = loaded.model, loaded.processor, find_value_matrices(loaded.model)
    taken = in_turns(
        {
            "mean coefficients": lambda: measure_examples(model, processor, prepared),
            "second moments": lambda: measure_moments(model, LabelledBatches(prepared, processor, model), matrices),
            "plain forward": lambda: plain_forward(loaded, prepared),
            "plain loop": lambda: plain_loop(loaded, prepared),
        },
        turns,
    )
    for name in ("mean coefficients", "second moments"):
        for slow in ("plain forward", "plain loop"):
            tell(f"{slow} / retain pass ({name})", taken[slow], taken[name])


def compare_generation(loaded: Loaded, questions: int, turns: int) -> None:
    """Generated tokens a second: both ways give the same answers, so seconds are compared."""
    prepared = loaded.prepare(short_questions(questions), new_tokens=24)
    taken = in_turns(
        {
            "kvw": lambda: generate_answers(loaded.model, loaded.processor, prepared, max_new_tokens=24),
            "transformers": lambda: plain_generate(loaded, prepared, 24),
        },
        turns,
    )
    tell("tokens a second: kvw / transformers' generate", taken["transformers"], taken["kvw"])


def compare_erase(loaded: Loaded) -> None:
    """A whole erase beside one plain forward over all it was given and the generation that it shows."""
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, KVW_CACHE=folder):
        for what in ("first request", "a further request"):
            out = Path(folder, what.replace(" ", "-"))
            request = EraseRequest(loaded.checkpoint, FORGET, None, out, choose=True, save_model=False)
            whole = seconds(partial(erase, request))
            material = gather_material(Task(request=request, loaded=loaded, data=read_data(request)), speaks=True)
            given = [*material.forget, *material.retain, *(one for some in material.judged.values() for one in some)]
            forward = seconds(partial(forward_over, loaded, given))
            shown = loaded.prepare(read_data(request).forget, new_tokens=50)
            generation = 2 * seconds(partial(plain_generate, loaded, shown, 50))
            print(
                f"| erase, {what} / (forward over {len(given)} examples + generation of 2 x {len(shown)} answers) | "
                f"{whole / (forward + generation):.2f} | {whole:.0f} s / ({forward:.0f} s + {generation:.0f} s) |",
                flush=True,
            )


def random_model(loaded: Loaded, size: str) -> Loaded:
    """The tokens of the model and a decoder of this size with random weights."""
    width, inner, layers = SIZES[size]
    config = LlamaConfig(
        vocab_size=loaded.model.config.vocab_size,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return replace(loaded, model=LlamaForCausalLM(config).eval())


def compare_growth(loaded: Loaded, questions: int) -> None:
    """The retain pass over 1, 10 and 100 times the examples; pass and solve with larger models."""

    def retain_pass(of: Loaded, examples: Sequence[Example]) -> None:
        batches = LabelledBatches(of.prepare(examples), of.processor, of.model)
        measure_moments(of.model, batches, find_value_matrices(of.model))

    few = [replace(one, question=f"{one.question} ({number})") for number in range(100) for one in short_questions(10)]
    base = 0.0
    for times in (1, 10, 100):
        took = seconds(partial(retain_pass, loaded, few[: 10 * times]))
        base = base or took
        print(f"| retain pass, {10 * times} examples, beside 10 | {took / base:.1f} | peak {peak()} |", flush=True)
    forget, retain = short_questions(4 + questions)[:4], short_questions(4 + questions)[4:]
    for size in SIZES:
        of = random_model(loaded, size)
        parameters = of.model.num_parameters() / 1e9
        prepared = of.prepare([*forget, *retain])
        forward = seconds(partial(plain_forward, of, prepared))
        one_pass = seconds(partial(retain_pass, of, [*forget, *retain]))
        with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, KVW_CACHE=folder):
            solve = seconds(partial(subspace_edit, of, forget, retain, SubspaceSettings(), lambda *_: None))
        print(
            f"| {parameters:.2f} B parameters: retain pass, solve with its passes, beside the plain forward | "
            f"{one_pass / forward:.2f}, {solve / forward:.2f} | {forward:.1f} s, peak {peak()} |",
            flush=True,
        )
        del of


def peak() -> str:
    """The largest memory of this process so far."""
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("pass", "generation", "erase", "growth")
    parser.add_argument("parts", nargs="*", choices=parts, default=list(parts))
    parser.add_argument("--model", default="smollm2:135m")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    quiet_libraries()
    loaded = Loaded.load(find_model(arguments.model))
    print(
        f"{arguments.model}, {loaded.model.device}, {torch.get_num_threads()} threads, {arguments.questions} questions"
    )
    print("\n| | ratio | range |\n| --- | ---: | --- |", flush=True)
    if "pass" in arguments.parts:
        compare_pass(loaded, arguments.questions, arguments.turns)
    if "generation" in arguments.parts:
        compare_generation(loaded, arguments.questions, arguments.turns)
    if "erase" in arguments.parts:
        compare_erase(loaded)
    if "growth" in arguments.parts:
        compare_growth(loaded, arguments.questions)


if __name__ == "__main__":
    main()
