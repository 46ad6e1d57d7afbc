"""The methods by name, for commands, recipes and Python alike; importing this loads nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, get_origin, get_type_hints

from kvw.data.benchmarks.items import known
from kvw.errors import UserError
from kvw.methods.grid import every_combination
from kvw.methods.settings import KvwSettings
from kvw.methods.steering.conditional_settings import ConditionalKvwSettings
from kvw.methods.steering.settings import SteeringSettings
from kvw.methods.subspace.relatives.settings import RELATIVES
from kvw.methods.subspace.settings import SubspaceSettings


@dataclass(frozen=True)
class Method:
    """A method of unlearning.

    Args:
        settings: Its settings, a dataclass that checks its values.
        home: Module and function that runs it: (loaded model, forget examples, retain examples, settings, progress) ->
            Edit, or :class:`kvw.runs.unlearning.Unlearned` if it has more to say.
        statistics: All it wants of the retain set are statistics, which are kept on disk and can be given as a file.
        every_layer: Without ``layers`` it works on all of them, and not on 1 .. L - 3 of L as KVW does.
        hooks_alone: Its edits act while the model runs and have no weights to write.
        varied_by: What the edits of one solve differ in when their strength is chosen, see
            :data:`kvw.selection.paths.Kind`.
        dose: The settings that fix how strong the edit is; whoever gives one wants no other strength.
        plan: Module and function of ``kvw erase --dry-run``: (loaded model, forget, retain, settings) ->
            :class:`kvw.runs.planning.MethodPlan`, both sets prepared; None: the dry run says nothing of the method.
    """

    settings: type[Any]
    home: tuple[str, str]
    statistics: bool = False
    every_layer: bool = True
    hooks_alone: bool = False
    varied_by: Literal["directions", "strength", "share"] = "strength"
    dose: tuple[str, ...] = ()
    plan: tuple[str, str] | None = None


METHODS = {
    "kvw": Method(
        KvwSettings,
        ("kvw.runs.unlearning", "kvw_edit"),
        statistics=True,
        every_layer=False,
        dose=("gamma", "epochs", "update_every", "parity"),
        plan=("kvw.runs.planning", "kvw_plan"),
    ),
    "subspace": Method(
        SubspaceSettings,
        ("kvw.runs.unlearning", "subspace_edit"),
        varied_by="directions",
        dose=("strength", "mu", "gamma", "threshold", "quantile", "gate", "smallest_gate", "honest"),
        plan=("kvw.runs.planning", "subspace_plan"),
    ),
    "steering": Method(
        SteeringSettings, ("kvw.runs.unlearning", "steering_edit"), hooks_alone=True, dose=("strength",)
    ),
    **{
        settings.name: Method(settings, ("kvw.runs.unlearning", "relative_edit"), varied_by="share")
        for settings in RELATIVES
    },
    "conditional-kvw": Method(
        ConditionalKvwSettings, ("kvw.runs.unlearning", "conditional_kvw_edit"), hooks_alone=True, dose=("gamma",)
    ),
}


DEFAULT = "subspace"
"""What ``kvw erase`` does unless told otherwise: the best of those without training on the toy benchmark."""


def get_method(name: str) -> Method:
    """A method by name.

    Raises:
        UserError: There is none; the message names the closest.
    """
    return METHODS[known(name, METHODS, "method", DEFAULT)]


def combinations(name: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every combination of the settings of a recipe; a list stands for several values to try.

    Args:
        name: The method.
        values: Settings by name, see :func:`build_settings`.

    Returns:
        At least one set of settings, in the order in which the recipe lists them.

    Raises:
        UserError: There is no such method or setting, a value makes no sense, or there are too many combinations.
    """
    get_method(name)
    found = every_combination(name, values)
    for settings in found:
        build_settings(name, settings)
    return found


def build_settings(name: str, values: Mapping[str, Any]) -> Any:
    """The settings of a method from the values of a recipe or a command line.

    Args:
        name: The method.
        values: By name; as they are or as text. Layers are written ``1:25``, nothing ``none``, and a value inside
            a group of settings ``sources.answer``.

    Raises:
        UserError: There is no such setting, or a value makes no sense.
    """
    return _build(get_method(name).settings, values, f"method {name}")


def _build(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    names, hints = {field.name: field for field in fields(kind)}, get_type_hints(kind)
    groups: dict[str, dict[str, Any]] = {}
    found: dict[str, Any] = {}
    for key, value in values.items():
        name, dot, rest = key.partition(".")
        known(name, names, "setting", where)
        inner = hints[name]
        if is_dataclass(inner) and (dot or isinstance(value, Mapping)):
            groups.setdefault(name, {}).update({rest: value} if dot else value)
        elif dot:
            raise UserError(f"Setting {name} of {where} is no group.", found=key, do=f"write {name}=VALUE")
        else:
            found[name] = _read(name, value, inner, where)
    for name, inside in groups.items():
        group = hints[name]
        found[name] = _build(group, inside, f"{name} of {where}")
    for name, value in found.items():
        try:
            found[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise UserError(
                f"Setting {name} of {where} cannot be used.", found=f"{value!r}: {reason}", do="see: kvw methods NAME"
            ) from error
    return kind(**found)


def _read(name: str, value: Any, hint: Any, where: str) -> Any:
    """A value that may be text: ``none``, ``1:25`` for layers, ``1, 2`` for several."""
    if value == "none":
        return None
    if name == "layers":
        return _read_layers(value, where)
    if get_origin(hint) is tuple and isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _read_layers(value: Any, where: str) -> Any:
    """Read ``1:25``.

    Raises:
        UserError: It does not have that form.
    """
    if not isinstance(value, str):
        return value
    first, _, last = value.partition(":")
    if not all(part.isascii() and part.isdigit() for part in (first, last)):
        raise UserError(
            f"layers of {where} needs the first and the last layer.",
            found=value,
            do="write it as FIRST:LAST, for example 1:25",
        )
    return int(first), int(last)
