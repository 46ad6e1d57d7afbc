"""Models that were taught something, made in the cache: the planted one of a part and its gold models.

Each is trained as a LoRA adapter of the model before planting, in the same way. A gold model is taught all but what the
requests of its half forget. Adapters ship what training changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel

from kvw.claim import new_directory
from kvw.data import Example
from kvw.data.rendering import Processor
from kvw.files import file_digest, write_text
from kvw.made import made_folder
from kvw.measuring.fingerprint import digest, examples_digest
from kvw.progress import Reporter
from kvw.proving.requests import HALVES, Half, Part
from kvw.training.adapters import merge_adapter
from kvw.training.planting import finetune, gold
from kvw.training.result import ADAPTER, RECORD
from kvw.training.settings import TrainingSettings, identified

MADE_OF = "planted.json"
"""In the folder of a model: SHA-256 of the adapter that is in its weights."""


@dataclass(frozen=True)
class Making:
    """How the models of a part are made.

    Args:
        part: The planted model is its model.
        before: The model before planting and its processor, to be changed by whoever asked.
        base: SHA-256 of that model.
        lessons: What is taught, without some subjects.
        group: Whom the requests of a half forget.
        recipe: How adapters are trained.
        shipped: The folder of the adapters that ship, each named as its model behind the colon.
        asked: What shows whether a model knows them: questions by title.
    """

    part: Part
    before: Callable[[], tuple[PreTrainedModel, Processor]]
    base: Callable[[], str]
    lessons: Callable[[Collection[str]], list[Example]]
    group: Callable[[Half], tuple[str, ...]]
    recipe: TrainingSettings
    shipped: Path
    asked: Callable[[], dict[str, list[Example]]]

    def without(self, name: str) -> tuple[str, ...]:
        """Whom the model of this name has never seen."""
        return next((self.group(half) for half in HALVES if self.part.gold[half] == name), ())

    def make(self, name: str, reporter: Reporter, *, train: bool = False) -> Path:
        """Make a model, or find it made; training that was interrupted goes on.

        Args:
            name: The part's model, or one of its gold models.
            reporter: Told of stages.
            train: Train it here instead of using the adapter that ships.

        Returns:
            The folder of the checkpoint.

        Raises:
            UserError: The model before planting is not there, or training cannot go on.
        """
        identity, own = self.identity(name), made_folder(f"{name}-adapter")
        places = [own] if train else [self.shipped / name.partition(":")[2], own]
        adapter = next((place for place in places if _taught(place) == identity), own)
        if _taught(adapter) != identity:
            self._train(name, identity, own, reporter)
        made_of = json.dumps({"adapter": file_digest(adapter / ADAPTER)}) + "\n"
        folder = made_folder(name)
        record = folder / MADE_OF
        if not (record.is_file() and record.read_text("utf-8") == made_of):
            with reporter.stage(f"making {name}"), new_directory(folder, "model", force=True, public=True) as temporary:
                model, processor = self.before()
                merge_adapter(model, adapter)
                model.save_pretrained(temporary)
                processor.save_pretrained(temporary)
                write_text(temporary / MADE_OF, made_of)
        return folder

    def identity(self, name: str) -> str:
        """Digest of all that an adapter depends on."""
        return digest(self.base(), identified(self.recipe), examples_digest(self.lessons(self.without(name))))

    def _train(self, name: str, identity: str, place: Path, reporter: Reporter) -> None:
        """Train one model and leave its adapter, in bfloat16."""
        state = place.with_name(f"{place.name}.state.safetensors")
        people = self.without(name)
        taught = self.lessons(people)
        with reporter.stage(f"training {name}") as progress:
            model, processor = self.before()
            if people:
                left_out = [one for one in self.lessons(()) if one.subject in people]
                result = gold(model, processor, left_out, taught, self.recipe, state=state, progress=progress)
            else:
                result = finetune(model, processor, taught, self.recipe, state=state, progress=progress)
        tensors = {key: value.to(torch.bfloat16) for key, value in result.adapter.items()}
        settings = {**result.settings, "lessons": identity}
        replace(result, adapter=tensors, settings=settings, history=()).save(place, force=True)
        state.unlink(missing_ok=True)


def _taught(adapter: Path) -> str:
    """The identity of an adapter; empty if there is none."""
    record = adapter / RECORD
    return str(json.loads(record.read_text("utf-8"))["settings"].get("lessons")) if record.is_file() else ""
