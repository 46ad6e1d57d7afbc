"""Whether a written checkpoint loads as its source does, found out without loading the weights."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from kvw.errors import UserError
from kvw.files import explained
from kvw.models.companions import ADAPTER, copy_companions
from kvw.models.headers import read_header
from kvw.models.loading import Checkpoint, load_config, load_processor, skeleton
from kvw.models.meta_loading import Report, loading_report
from kvw.models.weight_files import find_weights, weight_files


def check_copy(source: Checkpoint) -> None:
    """Find out before the work begins whether a copy of a checkpoint will load as the source does.

    A copy is made in a temporary folder, with links in place of the weight files, and looked at as the written one
    will be.

    Raises:
        UserError: It would not, or the source's files cannot be those of its configuration.
    """
    with explained(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(prefix="kvw-") as temporary:
        folder = Path(temporary)
        copy_companions(source.folder, folder)
        for path in weight_files(source.folder):
            (folder / path.name).symlink_to(path.resolve())
        outline = _outline(source)
        if not load_config(source).is_encoder_decoder:  # its files fill both, and the skeleton may be only the decoder
            outline.report.refuse_unfit(str(source))
        _check_like(outline, folder)


def check_reload(source: Checkpoint, folder: Path) -> None:
    """Read a written checkpoint as its user will, all but the weights.

    The configuration must give the same model class as the source's, and the files the same processor; every weight
    file must hold tensors of the same names, dtypes and shapes as the source's; transformers must find what it finds in
    the source, and miss nothing else; the index must name exactly what the files hold.

    Raises:
        UserError: Something of this does not hold.
    """
    _check_like(_outline(source), folder)


def _check_like(before: _Outline, folder: Path) -> None:
    after = _outline(Checkpoint(folder, folder.name))
    if before.model is not after.model:
        raise _unlike(f"its configuration makes a {after.model.__name__}, the source's a {before.model.__name__}")
    for file in sorted(before.tensors.keys() | after.tensors.keys()):
        one, other = before.tensors.get(file, {}), after.tensors.get(file, {})
        differing = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
        if differing:
            raise _unlike(f"{file} differs in {', '.join(differing[:3])}")
    if before.report != after.report:
        raise _unlike("transformers fits its tensors to other parameters than the source's")
    if before.processor != after.processor:
        raise _unlike(f"its processor is {after.processor or 'absent'}, the source's {before.processor or 'absent'}")
    if (folder / ADAPTER).exists():
        raise _unlike(f"{ADAPTER} lies beside it, and transformers would look for an adapter")
    if wrong := find_weights(folder).wrong_entries():
        raise _unlike(f"its index names tensors that are not there: {', '.join(wrong[:3])}")


@dataclass(frozen=True)
class _Outline:
    """What loading a checkpoint gives, all but the content of the weights."""

    model: type
    processor: str
    """Name of its class; empty if there is none that can be loaded."""
    tensors: dict[str, dict[str, tuple[str, tuple[int, ...]]]]
    """Dtype and shape of each tensor, file by file."""
    report: Report


def _outline(checkpoint: Checkpoint) -> _Outline:
    model = skeleton(checkpoint)
    try:
        processor = load_processor(checkpoint, model.config)
        name = f"{type(processor).__name__} with {type(getattr(processor, 'tokenizer', processor)).__name__}"
    except UserError:
        name = ""
    tensors = {
        path.name: {name: (tensor.dtype, tensor.shape) for name, tensor in read_header(path).items()}
        for path in weight_files(checkpoint.folder)
    }
    return _Outline(type(model), name, tensors, loading_report(model, checkpoint.folder))


def _unlike(found: str) -> UserError:
    return UserError(
        "The written model would not load like its source.", found=found, do="report this with the model's name"
    )
