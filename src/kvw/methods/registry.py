"""The methods by name: the one table, and those of others. Importing this loads nothing heavy."""

from __future__ import annotations

import re
import sys
from dataclasses import is_dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from kvw.errors import UserError
from kvw.files import file_digest
from kvw.known import known
from kvw.methods.method import Method

METHODS = {
    "kvw": "kvw.methods.kvw:METHOD",
    "subspace": "kvw.methods.subspace:METHOD",
    "steering": "kvw.methods.steering:METHOD",
    "r-muse": "kvw.methods.r_muse:METHOD",
    "lunar": "kvw.methods.lunar:METHOD",
    "memit-zero": "kvw.methods.subspace.baselines:MEMIT_ZERO",
    "leace": "kvw.methods.subspace.baselines:LEACE",
    "deep-unlearning": "kvw.methods.subspace.baselines:DEEP_UNLEARNING",
    "forget-components": "kvw.methods.subspace.baselines:FORGET_COMPONENTS",
    "output-side": "kvw.methods.subspace.baselines:OUTPUT_SIDE",
    "rms-kvw": "kvw.methods.subspace.baselines:RMS_KVW",
    "vl-eraser": "kvw.methods.subspace.baselines:VL_ERASER",
    "rep-select": "kvw.methods.rep_select:METHOD",
    "chip": "kvw.methods.chip:METHOD",
    "conditional-kvw": "kvw.methods.conditional_kvw:METHOD",
    "auvic": "kvw.methods.gradient.auvic:METHOD",
    "catnip": "kvw.methods.gradient.catnip:METHOD",
    "delta-unlearning": "kvw.methods.delta:METHOD",
    "dpo": "kvw.methods.gradient.dpo:METHOD",
    "empty-response": "kvw.methods.gradient.error_injection:EMPTY",
    "error-injection": "kvw.methods.gradient.error_injection:METHOD",
    "fact-erasure": "kvw.methods.gradient.fact_erasure:METHOD",
    "forgetting-mari": "kvw.methods.gradient.forgetting_mari:METHOD",
    "ga": "kvw.methods.gradient.ga:METHOD",
    "grad-diff": "kvw.methods.gradient.grad_diff:METHOD",
    "iau": "kvw.methods.gradient.iau:METHOD",
    "icu": "kvw.methods.gradient.icu:METHOD",
    "idk-dpo": "kvw.methods.gradient.dpo:IDK",
    "idk-nll": "kvw.methods.gradient.idk_nll:METHOD",
    "kl": "kvw.methods.gradient.kl:METHOD",
    "kuda": "kvw.methods.gradient.kuda:METHOD",
    "lens-entropy": "kvw.methods.gradient.lens_defence:ENTROPY",
    "lens-margin": "kvw.methods.gradient.lens_defence:METHOD",
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
PUBLISHED = "kvw"
"""The published method that ``kvw demo`` compares with :data:`DEFAULT`."""
GROUP = "kvw.methods"
"""The entry points by which other packages add methods."""
NAME = re.compile(r"[\w.-]{1,64}")
"""Names of methods end up in names of files."""


def installed() -> list[str]:
    """The names of all methods: those of kvw, and those of other packages."""
    return [*METHODS, *_plugins()]


def from_statistics() -> list[str]:
    """The methods of kvw that can take statistics in place of the retain set."""
    methods = [get_method(name) for name in METHODS]
    return [method.name for method in methods if method.statistics_positions(method.read({})) is not None]


def get_method(name: str) -> Method[Any]:
    """A method by name, or by the place of its object: ``path/to/file.py:METHOD``.

    Raises:
        UserError: There is none, in which case the message names the closest; or it cannot be loaded.
    """
    if name in METHODS:
        module, _, attribute = METHODS[name].partition(":")
        method: Method[Any] = getattr(import_module(module), attribute)
        return method
    path, colon, attribute = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _from_file(Path(path).absolute(), attribute)
    if name.endswith(".py"):
        raise UserError("Which object of this file is the method?", found=name, do=f"write {name}:METHOD")
    plugins = _plugins()
    return _of_package(plugins[known(name, {**METHODS, **plugins}, "method")])


def _plugins() -> dict[str, EntryPoint]:
    """The methods of other packages; a name of kvw's own cannot be taken."""
    return {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in METHODS}


@cache
def _of_package(entry: EntryPoint) -> Method[Any]:
    try:
        loaded = entry.load()
    except Exception as error:  # whatever a module of others raises
        raise _broken(entry.name, error) from error
    if entry.dist is not None and isinstance(loaded, Method):
        loaded.version = f"{entry.dist.name} {entry.dist.version}"
    return _checked(loaded, entry.value, entry.name)


@cache
def _from_file(path: Path, attribute: str) -> Method[Any]:
    if not path.is_file():
        raise UserError(f"There is no file {path}.", do="write the place of a method as path/to/file.py:METHOD")
    digest = file_digest(path)
    spec = spec_from_file_location(f"kvw_method_{digest[:12]}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} cannot be imported.", do="give a file of Python")
    module = sys.modules[spec.name] = module_from_spec(spec)  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
        loaded = getattr(module, attribute)
    except Exception as error:  # whatever a module of others raises
        raise _broken(str(path), error) from error
    if isinstance(loaded, Method):
        loaded.version = digest
    return _checked(loaded, f"{path}:{attribute}")


def _broken(where: str, error: Exception) -> UserError:
    return UserError(
        f"The method in {where} cannot be loaded.",
        found=f"{type(error).__name__}: {error}",
        do="correct the file or the package that it comes from",
    )


def _checked(found: Any, where: str, expected: str = "") -> Method[Any]:
    """What was loaded, if it keeps to what every command relies on."""
    if not isinstance(found, Method):
        raise UserError(
            f"{where} is no method.", found=type(found).__name__, do="make it an object of a subclass of kvw.Method"
        )
    name = getattr(found, "name", None)
    if not (isinstance(name, str) and NAME.fullmatch(name)) or name in METHODS or name != (expected or name):
        raise UserError(
            f"The method at {where} needs a name of its own.",
            found=repr(name),
            do=f"state name = {expected!r}, as its entry point does" if expected else "state another name",
        )
    if not is_dataclass(getattr(found, "settings", None)):
        raise UserError(f"The method at {where} has no dataclass of settings.", do="state settings = ...")
    return found
