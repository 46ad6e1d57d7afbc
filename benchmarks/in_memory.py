"""What edits of a model in memory forget and lose: the one that kvw.find_edit chooses, and some that nothing chooses.

The forget and retain file of examples/smollm2: the mean probability of their answers, the perplexity of the shipped
sentences, and the share of free answers that are empty or end in a loop, for subspace weakening.

usage: python benchmarks/in_memory.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import kvw
from kvw.cli.options import find_model
from kvw.data import Example
from kvw.evaluation.language import broken_share, listen
from kvw.evaluation.loaded import Loaded
from kvw.evaluation.probability import answer_probabilities
from kvw.quiet import quiet_libraries

DATA = Path(__file__).parents[1] / "examples" / "smollm2"


def row(name: str, loaded: Loaded, splits: Sequence[Sequence[Example]]) -> str:
    """What the model as it is now gives of each split and of language."""
    shares = [
        fmean(one.probability for one in answer_probabilities(loaded.model, loaded.processor, loaded.prepare(split)))
        for split in splits
    ]
    speech = listen(loaded.model, loaded.processor)
    cells = [f"{share:.3f}" for share in shares]
    cells += [f"{speech.perplexity:.1f}", f"{broken_share(speech.answers):.0%}"]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Print a table."""
    quiet_libraries()
    loaded = Loaded.load(find_model("smollm2:135m"))
    forget, retain = (kvw.read_examples(DATA / f"{name}.jsonl") for name in ("forget", "retain"))
    print("| edit | forget | retain | perplexity | broken |\n|---|---:|---:|---:|---:|", flush=True)
    print(row("none", loaded, (forget, retain)), flush=True)
    whole, early = (
        kvw.subspace(loaded.model, forget, retain, settings, processor=loaded.processor)
        for settings in (kvw.SubspaceSettings(), kvw.SubspaceSettings(gate="thresholded wiener", layers=(0, 14)))
    )
    found = kvw.find_edit(loaded.model, forget, retain, processor=loaded.processor)
    edits = {
        "`kvw.find_edit`": found.edit,
        "`kvw.subspace`, defaults": whole,
        "`edit.scaled(0.1)`": whole.scaled(0.1),
        "`edit.mixed(0.3)`": whole.mixed(0.3),
        "`edit.mixed(0.1)`": whole.mixed(0.1),
        '`SubspaceSettings(gate="thresholded wiener", layers=(0, 14))`': early,
    }
    for name, edit in edits.items():
        with edit.attach(loaded.model):
            print(row(name, loaded, (forget, retain)), flush=True)


if __name__ == "__main__":
    main()
