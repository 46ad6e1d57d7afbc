"""What subspace weakening reaches on the toy world beside one-shot KVW and the gold model: exact match by split.

usage: python benchmarks/subspace_toy.py [--examples 120] [--layers 0 5] [--baselines]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from transformers import PreTrainedModel

from kvw.cli.options import find_model
from kvw.data import prepare, read_examples
from kvw.edits import Directions, Edit, LowRankEdit
from kvw.evaluation.evaluation import evaluate
from kvw.measuring.examples import measure_examples
from kvw.measuring.labelled import LabelledBatches
from kvw.measuring.moment_passes import measure_moments, measure_tokens
from kvw.measuring.moments import Moment, Tokens
from kvw.methods.kvw.weaken import one_shot
from kvw.methods.subspace.baselines.formulas import FORMULAS, Given
from kvw.methods.subspace.baselines.settings import (
    BaselineSettings,
    DeepUnlearningSettings,
    ForgetComponentsSettings,
    MemitZeroSettings,
    OutputSideSettings,
)
from kvw.methods.subspace.labels import Labels, labels_of
from kvw.methods.subspace.method import subspace
from kvw.methods.subspace.settings import SubspaceSettings
from kvw.methods.subspace.vectors import view_means
from kvw.models.finding import find_value_matrices, select_layers
from kvw.models.loading import load_model, load_processor
from kvw.models.value_matrix import MatrixKey, ValueMatrix
from kvw.quiet import quiet_libraries
from kvw.toy import SPLITS, World, write_world
from kvw.toy.world import LONGEST_ANSWER

GAMMAS = (0.05, 0.1, 0.2, 0.4, 1.6)
SETTINGS: dict[str, dict[str, Any]] = {
    **{f"FFNs alone, mu {mu:g}": {"matrices": "ffn", "mu": mu} for mu in (0.3, 1.0, 3.0, 10.0)},
    **{f"FFNs and attention, mu {mu:g}": {"mu": mu} for mu in (0.1, 0.2, 0.3, 0.5, 1.0, 3.0)},
}
COLUMNS = (
    "forget",
    "forget_new_photos",
    "forget_new_phrasings",
    "forget_text",
    "retain",
    "unused",
    "unused_new_photos",
    "unused_text",
    "general",
)


BASELINE_SETTINGS: dict[str, BaselineSettings] = {
    **{f"output side, mu {mu:g}": OutputSideSettings(mu=mu) for mu in (0.3, 1, 3)},
    **{f"diagonal S, mu {mu:g}": MemitZeroSettings(mu=mu, shrinkage=1.0) for mu in (0.03, 0.1, 0.3)},
    **{f"Deep Unlearning, alpha_f {alpha:g}": DeepUnlearningSettings(alpha_f=alpha) for alpha in (3, 30, 300)},
    **{f"forget components, rank {rank}": ForgetComponentsSettings(rank=rank) for rank in (4, 16, 64)},
}


def relative_edits(
    matrices: Sequence[ValueMatrix], moments: dict[MatrixKey, Moment], tokens: dict[MatrixKey, Tokens], labels: Labels
) -> Iterator[tuple[str, LowRankEdit]]:
    """Ablations by name, all with the means over the views of a fact as forget vectors."""
    given = {}
    for matrix in matrices:
        vectors = view_means(tokens[matrix.key], labels).values.double()
        given[matrix.key] = Given(matrix.read().double(), moments[matrix.key].mean.double(), vectors)
    for name, settings in BASELINE_SETTINGS.items():
        formula = FORMULAS[type(settings)]
        yield name, LowRankEdit({key: Directions(*formula(one, settings)) for key, one in given.items()})


def main() -> None:
    """Weaken, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=120, help="per split")
    parser.add_argument("--layers", type=int, nargs=2, default=(0, 5), help="first and last")
    parser.add_argument("--baselines", action="store_true", help="ablations instead of the method's own gates")
    arguments = parser.parse_args()
    quiet_libraries()
    layers = tuple(arguments.layers)
    with tempfile.TemporaryDirectory() as folder:
        examples = {name: read_examples(file) for name, file in write_world(World(), Path(folder)).items()}
        scored = {
            name: Random(0).sample(examples[name], min(arguments.examples, len(examples[name])))
            for name in COLUMNS
            if name in SPLITS
        }
        model, processor = load_model(find_model("toy:vanilla")), load_processor(find_model("toy:vanilla"))

        def show(name: str, other: PreTrainedModel = model) -> None:
            found = evaluate(other, processor, scored, max_new_tokens=LONGEST_ANSWER).summaries
            print(f"| {name} | " + " | ".join(f"{found[split].exact:.3f}" for split in COLUMNS) + " |", flush=True)

        def show_edit(name: str, edit: Edit) -> None:
            with edit.attach(model):
                show(name)

        print("| | " + " | ".join(name.replace("_", " ") for name in COLUMNS) + " |")
        print("|---|" + "---:|" * len(COLUMNS))
        show("original")
        forget, retain = (
            LabelledBatches(prepare(examples[name], processor), processor, model) for name in ("forget", "retain")
        )
        forget_labels = labels_of([examples["forget"][place] for place in forget.order])
        retain_labels = labels_of([examples["retain"][place] for place in retain.order])
        if arguments.baselines:
            matrices = select_layers(find_value_matrices(model), layers)
            moments, _ = measure_moments(model, retain, matrices)
            tokens = measure_tokens(model, forget, matrices, weights=forget_labels.weights())
            for name, edit in relative_edits(matrices, moments, tokens, forget_labels):
                show_edit(name, edit)
        else:
            statistics = [
                measure_examples(model, processor, prepare(examples[name], processor), layers=layers).statistics
                for name in ("forget", "retain")
            ]
            for gamma in GAMMAS:
                show_edit(f"KVW one-shot, gamma {gamma:g}", one_shot(*statistics, gamma=gamma, steps=144))
            for name, values in SETTINGS.items():
                settings = SubspaceSettings(**{"layers": layers, **values})
                edit = subspace(
                    model, forget, retain, settings, forget_labels=forget_labels, retain_labels=retain_labels
                )
                show_edit(name, edit)
        show("*gold model*", load_model(find_model("toy:gold")))


if __name__ == "__main__":
    main()
