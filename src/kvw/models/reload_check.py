"""Whether a written checkpoint is one that loads, found out without loading it."""

from __future__ import annotations

import json
from pathlib import Path

from kvw.errors import UserError
from kvw.models.headers import read_header
from kvw.models.loading import Checkpoint, skeleton
from kvw.models.weight_files import INDEX, weight_files


def check_reload(source: Checkpoint, folder: Path) -> None:
    """Read a written checkpoint as transformers will, all but the weights.

    The configuration must give the same model class as the source's, every weight file must hold tensors of the same
    names, dtypes and shapes as the source's, and the index must name exactly what the files hold.

    Raises:
        UserError: Something of this does not hold.
    """
    found, expected = type(skeleton(Checkpoint(folder, folder.name))), type(skeleton(source))
    if found is not expected:
        raise _unlike(f"its configuration makes a {found.__name__}, the source's a {expected.__name__}")
    before, after = _headers(source.folder), _headers(folder)
    for file in sorted(before.keys() | after.keys()):
        one, other = before.get(file, {}), after.get(file, {})
        differing = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
        if differing:
            raise _unlike(f"{file} differs in {', '.join(differing[:3])}")
    if (folder / INDEX).is_file():
        index = json.loads((folder / INDEX).read_text("utf-8"))["weight_map"]
        missing = sorted(name for name, file in index.items() if name not in after[file])
        if missing:
            raise _unlike(f"its index names tensors that are not there: {', '.join(missing[:3])}")


def _headers(folder: Path) -> dict[str, dict[str, tuple[str, tuple[int, ...]]]]:
    return {
        path.name: {name: (tensor.dtype, tensor.shape) for name, tensor in read_header(path).items()}
        for path in weight_files(folder)
    }


def _unlike(found: str) -> UserError:
    return UserError(
        "The written model would not load like its source.", found=found, do="report this with the model's name"
    )
