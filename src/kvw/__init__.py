"""kvw: training-free unlearning for vision-language models.

The public names are looked up when first used, so that importing the package loads nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kvw._version import __version__
from kvw.errors import UserError
from kvw.exit_codes import quiet_while_loading

quiet_while_loading()

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
    from kvw.evaluation.evaluation import evaluate
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
    from kvw.runs.find_edit import FoundEdit, find_edit
    from kvw.runs.python import EraseOptions, apply, erase

_NAMES = {
    "kvw.data": "Example read_examples",
    "kvw.edits": "Edit EditMetadata GateEdit LowRankEdit SteeringEdit calibrate compose diff export_ia3 export_lora "
    "import_adapter invert load_edit mix scale",
    "kvw.evaluation.evaluation": "evaluate",
    "kvw.measuring.given": "measure",
    "kvw.measuring.in_memory": "batches",
    "kvw.measuring.statistics": "Statistics",
    "kvw.methods.kvw.settings": "KvwSettings",
    "kvw.methods.kvw.weaken": "one_shot weaken",
    "kvw.methods.method": "Method Unlearned",
    "kvw.methods.steering.method": "steering",
    "kvw.methods.subspace.fitter": "SubspaceFitter",
    "kvw.methods.subspace.labels": "Labels",
    "kvw.methods.subspace.method": "subspace",
    "kvw.methods.subspace.settings": "SubspaceSettings",
    "kvw.methods.unlearn": "unlearn",
    "kvw.models.detection": "confirm_value_matrices",
    "kvw.models.finding": "find_value_matrices",
    "kvw.models.loading": "find_checkpoint load_model load_processor",
    "kvw.processes": "together",
    "kvw.runs.find_edit": "FoundEdit find_edit",
    "kvw.runs.python": "EraseOptions apply erase",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "Edit",
    "EditMetadata",
    "EraseOptions",
    "Example",
    "FoundEdit",
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
    "find_edit",
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
