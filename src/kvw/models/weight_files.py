"""Which files of a folder are the weights: those that transformers loads, chosen in its order.

Everything that measures, patches, hashes, remembers or copies weights asks here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvw.errors import UserError
from kvw.models.headers import read_header
from kvw.models.json_file import read_object

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SUFFIX = ".safetensors"
NAMED_IN_CONFIG = "transformers_weights"
"""The entry of ``config.json`` by which a checkpoint names its file, or its index, itself."""
VARIANT = re.compile(r"model\.(?:[\w-]+\.safetensors|safetensors\.index\.[\w-]+\.json)")
DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
"""Files of torch's distributed checkpoints. A folder with one of them is loaded in another way."""


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint folder.

    Args:
        files: In the order in which transformers reads them. All lie directly in the folder, and may be links.
        index: The index that names them; None for a single file.
    """

    files: tuple[Path, ...]
    index: Path | None = None

    def check_loadable(self) -> None:
        """Refuse an index that transformers stumbles over.

        Raises:
            UserError: It has no metadata.
        """
        if self.index is not None and "metadata" not in read_object(self.index):
            raise _no_index(self.index, "no object metadata, without which transformers does not load it")

    def held(self) -> dict[str, str]:
        """Which file holds each tensor; of several the last, which is what transformers takes.

        Raises:
            UserError: A file is damaged.
        """
        return {name: path.name for path in self.files for name in read_header(path)}

    def wrong_entries(self) -> list[str]:
        """Names of tensors that the index places elsewhere than they are, or leaves out; empty for a single file."""
        if self.index is None:
            return []
        return sorted({name for name, _ in read_object(self.index)["weight_map"].items() ^ self.held().items()})

    def corrected_index(self) -> dict[str, Any] | None:
        """The index as it should be: it names each tensor of the files, in the file that holds it, and nothing else.

        Returns:
            Its content; None if it is right, or if there is none.

        Raises:
            UserError: A file is damaged.
        """
        if self.index is None:
            return None
        content = read_object(self.index)
        if not self.wrong_entries() and "metadata" in content:
            return None
        metadata = content.get("metadata", {})
        if "total_size" in metadata:
            tensors = [tensor for path in self.files for tensor in read_header(path).values()]
            metadata["total_size"] = sum(tensor.end - tensor.begin for tensor in tensors)
        return {**content, "metadata": metadata, "weight_map": dict(sorted(self.held().items()))}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers loads from a checkpoint folder, see :func:`find_weights`."""
    return list(find_weights(folder).files)


def find_weights(folder: Path) -> Weights:
    """Find the files that ``from_pretrained(folder, use_safetensors=True)`` loads.

    It takes what ``transformers_weights`` in ``config.json`` names; else ``model.safetensors``; else what
    ``model.safetensors.index.json`` names. Only plain names of safetensors files are followed, so that nothing outside
    the folder and no pickle is ever read.

    Raises:
        UserError: There are none, one that is named is not there, or a name or an index is not what it should be.
    """
    distributed = sorted(path.name for path in folder.glob(f"*{SUFFIX}") if DISTRIBUTED.fullmatch(path.name))
    if distributed:
        raise UserError(
            f"{folder.name} is a distributed checkpoint, which kvw does not read.",
            found=distributed[0],
            do="load it with transformers and write it with save_pretrained",
        )
    named = _named_in_config(folder)
    if named is None:
        named = SINGLE if (folder / SINGLE).is_file() or not (folder / INDEX).is_file() else INDEX
    index = folder / named if named.endswith(".index.json") else None
    names = [named] if index is None else _names_in_index(index)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        variants = sorted(path.name for path in folder.iterdir() if VARIANT.fullmatch(path.name))
        raise UserError(
            f"{folder.name} lacks weight files.",
            found=f"no {', '.join(missing[:5])}" + (", ..." if len(missing) > 5 else ""),
            do=f"{variants[0]} is a named variant, which transformers loads when asked for it: rename it, or write the "
            "model with save_pretrained"
            if variants
            else "kvw reads checkpoints whose weights are in safetensors files",
        )
    return Weights(tuple(folder / name for name in names), index)


def _named_in_config(folder: Path) -> str | None:
    config = folder / "config.json"
    name = read_object(config).get(NAMED_IN_CONFIG) if config.is_file() else None
    if name is None:
        return None
    if not _is_plain(name, (SUFFIX, f"{SUFFIX}.index.json")):
        raise _refused(f"config.json of {folder.name}", f"{NAMED_IN_CONFIG}: {_shown(name)}")
    if not (folder / name).is_file():
        raise UserError(
            f"{folder.name} lacks weight files.",
            found=f"no {name}, which {NAMED_IN_CONFIG} in config.json names",
            do="download or write the model again",
        )
    return str(name)


def _names_in_index(index: Path) -> list[str]:
    content = read_object(index)
    for entry in ("weight_map", "metadata"):
        if not isinstance(content.get(entry, {}), dict) or "weight_map" not in content:
            raise _no_index(index, f"no object {entry}")
    names = list(content["weight_map"].values())
    for name in names:
        if not _is_plain(name, (SUFFIX,)):
            raise _refused(f"{index.name} of {index.parent.name}", _shown(name))
    if not names:
        raise _no_index(index, "an empty weight_map")
    return sorted(set(names))


def _is_plain(name: object, suffixes: tuple[str, ...]) -> bool:
    if not isinstance(name, str) or not name.isprintable() or len(name.encode("utf-8")) > 255:
        return False
    return name.endswith(suffixes) and "/" not in name and "\\" not in name


def _no_index(index: Path, found: str) -> UserError:
    return UserError(
        f"{index.name} in {index.parent.name} is no index of weights.",
        found=found,
        do="get an intact copy of the checkpoint",
    )


def _refused(where: str, found: str) -> UserError:
    return UserError(
        f"{where} names a file of weights that kvw does not read.",
        found=found,
        do=f"name plain *{SUFFIX} files that lie beside it; pickled weights and other folders are never followed",
    )


def _shown(name: object) -> str:
    text = name if isinstance(name, str) else f"a {type(name).__name__}"
    return repr(text[:100])
