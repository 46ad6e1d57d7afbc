"""Copies of the benchmarks of what models know anyway: RWKU and WMDP, filled with harmless texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.data.benchmarks.writing import Change, Tables

TARGETS = ("Ada Vance", "Bo Lind", *(f"Cy Marsh {number}" for number in range(9)))


def _probe(target: str, number: int, level: int, **more: str) -> dict[str, Any]:
    kinds = {1: "cloze", 2: "simple question", 3: "prefix injection"}
    asked = f"{target} was born in ___." if level == 1 else f"Where was {target} born ({number})?"
    values = {"query": asked, "answer": f"Town {number}", "level": str(level), "type": kinds[level], "subject": target}
    return values | more


def _choice(number: int, **more: Any) -> dict[str, Any]:
    return {"question": f"Which is {number}?", "choices": ["0", "1", "2", "3"], "answer": number % 4, **more}


def rwku_tables() -> Tables:
    """Eleven targets with two probes of each level, each with four neighbours in questions and one in blanks."""
    tables: Tables = {"forget_target": [{"target": name, "intro": f"Please forget {name}."} for name in TARGETS]}
    for level in (1, 2, 3):
        tables[f"forget_level{level}"] = [_probe(name, number, level) for name in TARGETS for number in range(2)]
    for level, many in ((1, 1), (2, 4)):
        tables[f"neighbor_level{level}"] = [
            _probe(name, number, level) | {"query": f"Where was the cousin of {name} born ({level}, {number})?"}
            for name in TARGETS
            for number in range(many)
        ]
    tables["utility_general"] = [_choice(number, task="logic") for number in range(4)]
    return tables


def rwku(root: Path, change: Change = lambda tables: None) -> Path:
    """One JSON file for each table, declared by the README, as RWKU is published."""
    tables = rwku_tables()
    change(tables)
    return _write(root, {name: {"test": rows} for name, rows in tables.items()})


def wmdp(root: Path, change: Change = lambda tables: None) -> dict[str, Path]:
    """The questions, and the further sources by their names: the corpora, and MMLU with two splits."""
    pages = [
        {"text": f"Page {number} says much about locks and keys, and how to keep a house safe."} for number in range(3)
    ]
    tables: Tables = {
        "wmdp-cyber": [_choice(number) for number in range(4)],
        "wmdp-bio": [_choice(number) for number in range(3)],
        "cyber-forget-corpus": [dict(page) for page in pages],
        "cyber-retain-corpus": [{"text": page["text"].replace("locks", "gardens")} for page in pages],
        "bio-retain-corpus": [{"text": page["text"].replace("locks", "birds")} for page in pages],
        "bio": [{"title": "t", "abstract": "a", "doi": "d"} | page for page in pages],
        "all": [_choice(number, subject="logic") for number in range(4)],
    }
    change(tables)
    own = {name: {"test": tables[name]} for name in ("wmdp-cyber", "wmdp-bio")}
    corpora = {name: {"train": rows} for name, rows in tables.items() if name.endswith("-corpus")}
    mmlu = {"all": {"dev": tables["all"][:1], "test": tables["all"]}}
    return {
        "": _write(root / "wmdp", own),
        "corpora": _write(root / "corpora", corpora),
        "bio": _write(root / "bio", {"default": {"train": tables["bio"]}}),
        "mmlu": _write(root / "mmlu", mmlu),
    }


def _write(root: Path, tables: dict[str, dict[str, list[dict[str, Any]]]]) -> Path:
    root.mkdir(parents=True)
    declared = ""
    for name, splits in tables.items():
        declared += f"- config_name: {name}\n  data_files:\n"
        for split, rows in splits.items():
            file = f"{name}-{split}.jsonl"
            (root / file).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            declared += f"  - split: {split}\n    path: {file}\n"
    (root / "README.md").write_text(f"---\nconfigs:\n{declared}---\n")
    return root
