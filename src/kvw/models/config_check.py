"""Whether a checkpoint's settings can be those of its weights, found out before anything is built from them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import PretrainedConfig

from kvw.errors import UserError
from kvw.models.headers import read_header
from kvw.models.json_file import read_object
from kvw.models.weight_files import find_weights

COUNT = re.compile(r"(^|_)(layers?|depths?|blocks?|stages?|levels?|experts?)$")
"""Entries that say how often something is repeated."""
QUANTISATION = ("quantization_config", "compression_config")
ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
TOKENS = re.compile(r"(_token_ids?|suppress_tokens)$")
ALWAYS_ALLOWED = 1000
"""Parts and parameters that a configuration may have however few tensors the files hold."""
PARAMETERS_OF_A_TENSOR = 4
"""How many parameters transformers makes of one tensor at most: queries, keys and values, and a tied copy."""
WITHOUT_WEIGHTS = 100_000
"""Parameters that a configuration may have where no weights lie beside it. The largest models keep the experts of a
layer in one parameter and have a few thousand."""


class TooLarge(Exception):
    """A configuration describes more parameters than its weight files can fill."""


def check_config(folder: Path) -> None:
    """Refuse settings that would end in a traceback, a hang or full memory once they are used.

    Args:
        folder: The checkpoint; its ``config.json`` and, if there is one, ``generation_config.json`` are read.

    Raises:
        UserError: Names the file and the entry.
    """
    config = read_object(folder / "config.json")
    most = max(ALWAYS_ALLOWED, stored_tensors(folder) or 0)
    for place, entry, value in entries(config):
        name = f"{place}.{entry}".lstrip(".")
        if isinstance(value, int) and COUNT.search(entry) and abs(value) > most:
            raise _refused(folder, "config.json", f"{name} is {_shown(value)}", f"a number up to {most} is expected")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise _refused(folder, "config.json", f"{name} is {_shown(value)}", "a number of 64 bits is expected")
        if entry in ("model_type", "architectures") and not isinstance(value, str | list | None):
            raise _refused(folder, "config.json", f"{name} is {_shown(value)}", "a name is expected")
        if entry in QUANTISATION and value is not None:
            _check_quantisation(folder, name, value)
        if entry in ATTENTION and "/" in str(value):
            raise _refused(folder, "config.json", f"{name} is {_shown(value)}", "code from the hub is never run")
    if (folder / "generation_config.json").is_file():
        for entry, value in read_object(folder / "generation_config.json").items():
            if TOKENS.search(entry) and not _are_tokens(value, lists=not entry.endswith("_token_id")):
                raise _refused(
                    folder, "generation_config.json", f"{entry} is {_shown(value)}", "numbers of tokens are expected"
                )


def check_encoder(folder: Path, config: PretrainedConfig) -> None:
    """Refuse a configuration that says of a decoder that it has an encoder.

    Raises:
        UserError: The configuration names an encoder.
    """
    for part in (config, config.get_text_config()):
        if part.is_encoder_decoder and not type(part).is_encoder_decoder:
            found = f"is_encoder_decoder is true, and a {part.model_type} has no encoder"
            raise _refused(folder, "config.json", found, "false is expected")


@contextmanager
def built_from_config(folder: Path) -> Iterator[None]:
    """Build a model in this block; whatever goes wrong becomes one message, and more than fits the weights is refused.

    Raises:
        UserError: What transformers says, with the entries of ``config.json`` that it is about.
    """
    tensors = stored_tensors(folder)
    most = WITHOUT_WEIGHTS if tensors is None else ALWAYS_ALLOWED + PARAMETERS_OF_A_TENSOR * tensors
    made = 0

    def count(module: nn.Module, name: str, parameter: object) -> None:
        nonlocal made
        made += parameter is not None
        if made > most:
            raise TooLarge

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    except UserError:
        raise
    except TooLarge as error:
        held = "no weights lie beside it" if tensors is None else f"the weight files hold {tensors} tensors"
        found = f"it describes more than {most} parameters, and {held}"
        raise _refused(folder, "config.json", found, "get the configuration of these weights") from error
    except Exception as error:  # transformers lets through whatever wrong settings lead to
        raise not_usable(folder, error) from error
    finally:
        handle.remove()


def not_usable(folder: Path, error: Exception) -> UserError:
    """The message for settings that transformers cannot use: what it says, and the entries that this is about."""
    said = (str(error).strip() or "no message").splitlines()[0][:300]
    blamed = []
    for place, entry, value in entries(read_object(folder / "config.json")):
        named = isinstance(value, str) and len(value) > 1 and value in said
        if entry in ATTENTION or named or re.search(rf"\b{re.escape(entry)}\b", said):
            blamed.append(f"{place}.{entry}".lstrip(".") + f": {_shown(value)}")
    return UserError(
        f"The installed transformers cannot use the config.json of {folder.name}.",
        found=f"{type(error).__name__}: {said}" + (f" ({', '.join(blamed[:5])})" if blamed else ""),
        do="get an intact copy of it, or install what it asks for",
    )


def entries(config: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Every entry of a configuration and of the objects in it: where it is, its name and its value."""
    waiting = [("", config)]
    while waiting:
        place, found = waiting.pop()
        for name, value in found.items():
            yield place, name, value
            if isinstance(value, dict):
                waiting.append((f"{place}.{name}".lstrip("."), value))


def stored_tensors(folder: Path) -> int | None:
    """How many tensors a folder's weight files hold; None if they cannot be read."""
    try:
        files = [(path, path.stat()) for path in find_weights(folder).files]
        return sum(_tensors(path, state.st_ino, state.st_size, state.st_mtime_ns) for path, state in files)
    except (UserError, OSError):
        return None


@lru_cache(maxsize=4096)
def _tensors(path: Path, *state: int) -> int:
    return len(read_header(path))


def _check_quantisation(folder: Path, name: str, value: object) -> None:
    if not isinstance(value, dict):
        raise _refused(folder, "config.json", f"{name} is {_shown(value)}", "an object is expected")
    method = value.get("quant_method")
    if not isinstance(method, str | None):
        raise _refused(folder, "config.json", f"{name}.quant_method is {_shown(method)}", "a name is expected")


def _are_tokens(value: object, *, lists: bool) -> bool:
    """Whether a value is nothing, a token, or a list of tokens; with ``lists`` also a list of such lists."""
    if isinstance(value, list):
        return all(
            part is not None and (lists or not isinstance(part, list)) and _are_tokens(part, lists=lists)
            for part in value
        )
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**20:
        return "an integer of more than 20 digits"
    text = value if isinstance(value, str) else type(value).__name__ if isinstance(value, dict | list) else str(value)
    return repr(text[:80]) if isinstance(value, str) else text[:80]


def _refused(folder: Path, file: str, found: str, expected: str) -> UserError:
    return UserError(f"The {file} of {folder.name} cannot be used.", found=f"{found}; {expected}", do=f"correct {file}")
