"""What an edit does to GGUF files in llama.cpp: how many replies give the forgotten away, how many others are right.

A reply counts as right if it holds the last word of the expected answer. Needs an environment with xllamacpp.

usage: python benchmarks/gguf_engine.py --engine PYTHON --forget F.jsonl --others O.jsonl FILE.gguf[+ADAPTER.gguf] ...
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tests.llama_engine import ask


def read(path: Path, step: int = 1) -> list[tuple[str, str]]:
    """Questions and the last words of their answers."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()][::step]
    return [(row["question"], row["answer"].rstrip(".").split()[-1]) for row in rows]


def main() -> None:
    """Ask every file and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--engine", required=True)
    parser.add_argument("--forget", type=Path, required=True)
    parser.add_argument("--others", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="take every n-th of the others")
    options = parser.parse_args()
    forget, others = read(options.forget), read(options.others, options.every)
    print("| file | forgotten given away | others right |\n|---|---|---|")
    for entry in options.files:
        model, *adapters = entry.split("+")
        questions = [question for question, _ in forget + others]
        replies = ask(options.engine, Path(model), questions, [Path(adapter) for adapter in adapters])
        right = [word in reply for (_, word), reply in zip(forget + others, replies, strict=True)]
        names = "+".join(Path(part).name for part in (model, *adapters))
        given, kept = sum(right[: len(forget)]), sum(right[len(forget) :])
        print(f"| {names} | {given} of {len(forget)} | {kept} of {len(others)} |", flush=True)


if __name__ == "__main__":
    main()
