"""``kvw bench validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def validate(recipe: Annotated[Path, Parameter(help="Recipe (TOML).")]) -> None:
    """Check a recipe without loading models or data, and say what it would do."""
    from kvw.bench.recipe import read_recipe

    read = read_recipe(recipe)
    print(f"{recipe.name}: {read.title}")
    settings = ", ".join(filter(None, read.benchmark.setting)) or "its first setting"
    print(f"benchmark {read.benchmark.name}: {settings}")
    print("models: " + ", ".join(f"{role} {name}" for role, name in read.models_by_role.items()))
    if read.plant is not None:
        training = read.plant.training
        how = f"LoRA of rank {training.lora.rank}" if training.lora else "all weights"
        print(
            f"vanilla and gold are planted: {how}, epochs {training.epochs}, learning rate {training.learning_rate:g}"
        )
    settings_of: dict[str, int] = {}
    for part in read.method:
        settings_of[part.called] = settings_of.get(part.called, 0) + len(part.settings)
    for name, count in settings_of.items():
        print(f"method {name}: {count} settings to choose from")
    asked = 1 + (read.models_by_role.keys() != {"vanilla"}) + sum(len(part.settings) for part in read.method)
    print(f"{asked} models to ask in all" + (" for each setting" if len(read.benchmark.setting) > 1 else ""))
