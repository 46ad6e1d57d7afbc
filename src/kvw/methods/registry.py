"""The methods by name: the one table. Importing this loads nothing heavy."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from kvw.data.benchmarks.items import known
from kvw.methods.method import Method

METHODS = {
    "kvw": "kvw.methods.kvw:METHOD",
    "subspace": "kvw.methods.subspace:METHOD",
    "steering": "kvw.methods.steering:METHOD",
    "memit-zero": "kvw.methods.subspace.relatives:MEMIT_ZERO",
    "leace": "kvw.methods.subspace.relatives:LEACE",
    "deep-unlearning": "kvw.methods.subspace.relatives:DEEP_UNLEARNING",
    "forget-components": "kvw.methods.subspace.relatives:FORGET_COMPONENTS",
    "output-side": "kvw.methods.subspace.relatives:OUTPUT_SIDE",
    "rms-kvw": "kvw.methods.subspace.relatives:RMS_KVW",
    "conditional-kvw": "kvw.methods.conditional_kvw:METHOD",
    "dpo": "kvw.methods.gradient.dpo:METHOD",
    "ga": "kvw.methods.gradient.ga:METHOD",
    "grad-diff": "kvw.methods.gradient.grad_diff:METHOD",
    "idk-dpo": "kvw.methods.gradient.dpo:IDK",
    "idk-nll": "kvw.methods.gradient.idk_nll:METHOD",
    "kl": "kvw.methods.gradient.kl:METHOD",
    "manu": "kvw.methods.gradient.manu:METHOD",
    "mmunlearner": "kvw.methods.gradient.mmunlearner:METHOD",
    "npo": "kvw.methods.gradient.npo:METHOD",
    "rmu": "kvw.methods.gradient.rmu:METHOD",
    "simnpo": "kvw.methods.gradient.simnpo:METHOD",
    "task-vector": "kvw.methods.gradient.task_vector:METHOD",
    "undial": "kvw.methods.gradient.undial:METHOD",
}
"""Where each method's object is."""
DEFAULT = "subspace"
"""What ``kvw erase`` does unless told otherwise: the best of those without training on the toy benchmark."""


def get_method(name: str) -> Method[Any]:
    """A method by name.

    Raises:
        UserError: There is none; the message names the closest.
    """
    module, _, attribute = METHODS[known(name, METHODS, "method", "kvw")].partition(":")
    found: Method[Any] = getattr(import_module(module), attribute)
    return found
