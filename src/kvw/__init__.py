"""kvw: training-free unlearning for vision-language models.

The public names are looked up when first used, so that importing the package loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kvw._version import __version__
from kvw.errors import UserError

if TYPE_CHECKING:
    from kvw.data import Example, read_examples
    from kvw.edits import (
        Edit,
        EditMetadata,
        GateEdit,
        LowRankEdit,
        SteeringEdit,
        calibrate,
        compose,
        diff,
        export_ia3,
        export_lora,
        import_adapter,
        invert,
        load_edit,
        mix,
        scale,
    )
    from kvw.evaluation import evaluate
    from kvw.measuring.given import measure
    from kvw.measuring.in_memory import batches
    from kvw.measuring.statistics import Statistics
    from kvw.methods.kvw.settings import KvwSettings
    from kvw.methods.kvw.weaken import one_shot, weaken
    from kvw.methods.method import Method, Unlearned
    from kvw.methods.steering.method import steering
    from kvw.methods.subspace.fitter import SubspaceFitter
    from kvw.methods.subspace.labels import Labels
    from kvw.methods.subspace.method import subspace
    from kvw.methods.subspace.settings import SubspaceSettings
    from kvw.methods.unlearn import unlearn
    from kvw.models.detection import confirm_value_matrices
    from kvw.models.finding import find_value_matrices
    from kvw.models.loading import find_checkpoint, load_model, load_processor
    from kvw.processes import together
    from kvw.runs.python import apply, erase

_HOMES = {
    "apply": "kvw.runs.python",
    "batches": "kvw.measuring.in_memory",
    "Edit": "kvw.edits",
    "EditMetadata": "kvw.edits",
    "Example": "kvw.data",
    "GateEdit": "kvw.edits",
    "KvwSettings": "kvw.methods.kvw.settings",
    "Labels": "kvw.methods.subspace.labels",
    "LowRankEdit": "kvw.edits",
    "Method": "kvw.methods.method",
    "Statistics": "kvw.measuring.statistics",
    "SubspaceFitter": "kvw.methods.subspace.fitter",
    "SubspaceSettings": "kvw.methods.subspace.settings",
    "SteeringEdit": "kvw.edits",
    "Unlearned": "kvw.methods.method",
    "calibrate": "kvw.edits",
    "compose": "kvw.edits",
    "confirm_value_matrices": "kvw.models.detection",
    "diff": "kvw.edits",
    "erase": "kvw.runs.python",
    "evaluate": "kvw.evaluation",
    "export_ia3": "kvw.edits",
    "export_lora": "kvw.edits",
    "find_checkpoint": "kvw.models.loading",
    "find_value_matrices": "kvw.models.finding",
    "import_adapter": "kvw.edits",
    "invert": "kvw.edits",
    "load_edit": "kvw.edits",
    "load_model": "kvw.models.loading",
    "load_processor": "kvw.models.loading",
    "measure": "kvw.measuring.given",
    "mix": "kvw.edits",
    "one_shot": "kvw.methods.kvw.weaken",
    "read_examples": "kvw.data",
    "scale": "kvw.edits",
    "subspace": "kvw.methods.subspace.method",
    "steering": "kvw.methods.steering.method",
    "together": "kvw.processes",
    "unlearn": "kvw.methods.unlearn",
    "weaken": "kvw.methods.kvw.weaken",
}

__all__ = [
    "Edit",
    "EditMetadata",
    "Example",
    "GateEdit",
    "KvwSettings",
    "Labels",
    "LowRankEdit",
    "Method",
    "Statistics",
    "SteeringEdit",
    "SubspaceFitter",
    "SubspaceSettings",
    "Unlearned",
    "UserError",
    "__version__",
    "apply",
    "batches",
    "calibrate",
    "compose",
    "confirm_value_matrices",
    "diff",
    "erase",
    "evaluate",
    "export_ia3",
    "export_lora",
    "find_checkpoint",
    "find_value_matrices",
    "import_adapter",
    "invert",
    "load_edit",
    "load_model",
    "load_processor",
    "measure",
    "mix",
    "one_shot",
    "read_examples",
    "scale",
    "steering",
    "subspace",
    "together",
    "unlearn",
    "weaken",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kvw' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
