"""The files that belong to a checkpoint beside its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from kvw.errors import UserError
from kvw.files import file_digest
from kvw.models.weight_files import INDEX, find_weights

ADAPTER = "adapter_config.json"
"""Where it lies beside a model, transformers looks for an adapter, too, and puts it on."""
TOKENIZER = (
    "added_tokens.json",
    "special_tokens_map.json",
    "tekken.json",
    "tokenizer.json",
    "tokenizer_config.json",
    # Vocabularies, as the tokenizers of transformers name them.
    "*.model",
    "*.spm",
    "*.tiktoken",
    "*vocab.json",
    "bpe.codes",
    "byte_maps.json",
    "dict.txt",
    "emoji.json",
    "merges.txt",
    "normalizer.json",
    "prophetnet.tokenizer",
    "vocab-*.json",
    "vocab.txt",
    "word_*.json",
)
BELONGING = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
    "*.jinja",
    "additional_chat_templates/*.jinja",
    *TOKENIZER,
    *(f"*_tokenizer/{name}" for name in TOKENIZER),
    "*.py",
    "README.md",
    "LICENSE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""What a written model consists of beside its weights: configuration, processor, code, card and licences. A list,
because other files may undo an edit or tell what it hides: the same weights in other formats, adapters that would be
put on when the model is loaded, the state of a training, data."""


def companions(folder: Path) -> list[Path]:
    """The files of a checkpoint folder that belong to the model beside its weights.

    A link is followed within the folder and into the hub's cache, whose snapshots are folders of links.

    Raises:
        UserError: A link leads elsewhere: what lies there would become part of the written model.
    """
    found, real = belonging(folder), folder.resolve()
    for path in found:
        target = path.resolve()
        if not target.is_relative_to(real) and not _in_hub_cache(target, real):
            raise UserError(
                f"{path.relative_to(folder)} in {folder.name} is a link out of the folder.",
                found=f"it leads to {target}",
                do="replace the link by the file, if it belongs to the model, or remove it",
            )
    return found


def belonging(folder: Path) -> list[Path]:
    """The files of a checkpoint folder that belong to the model beside its weights, wherever links lead."""
    return sorted({path for pattern in BELONGING for path in folder.glob(pattern) if path.is_file()})


def left_aside(folder: Path) -> list[str]:
    """What a checkpoint folder holds that looks like a part of the model and is none, in sentences for the user.

    Raises:
        UserError: The folder lacks weight files, or one is damaged.
    """
    weights, said = find_weights(folder), []
    if ghosts := sorted(set(weights.wrong_entries()) - weights.held().keys()):
        some = ", ".join(ghosts[:3]) + (", ..." if len(ghosts) > 3 else "")
        said.append(
            f"The index of the weights names tensors that no file holds ({some}): "
            "transformers passes over them, and a written model does not name them."
        )
    if weights.index is None and (folder / INDEX).is_file():
        said.append(
            f"{INDEX} lies beside {weights.files[0].name}, which is what transformers loads: the files that it names "
            "are left aside."
        )
    if (folder / ADAPTER).is_file():
        said.append(
            f"{ADAPTER} lies beside the model: the model is taken without the adapter, and a written model does not "
            "have it."
        )
    return said


def copy_companions(source: Path, folder: Path) -> None:
    """Copy what belongs to a checkpoint beside its weights, and write an index that is right.

    The index is the source's, byte for byte, unless that names what no file holds or lacks what one does.

    Args:
        source: Folder of the checkpoint.
        folder: Existing directory to write into.

    Raises:
        UserError: See :func:`companions`; or a copy does not read back as it was written.
    """
    paths = companions(source)
    weights = find_weights(source)
    corrected = weights.corrected_index()
    if weights.index is not None and corrected is None:
        paths.append(weights.index)
    elif weights.index is not None:
        (folder / weights.index.name).write_text(json.dumps(corrected, indent=2) + "\n", "utf-8")
        shutil.copymode(weights.index, folder / weights.index.name)
    for path in paths:
        copy = folder / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)
        if file_digest(path) != file_digest(copy):
            raise damaged(copy, "another SHA-256")
        shutil.copymode(path, copy)


def damaged(path: Path, found: str) -> UserError:
    """The error for a written file that does not read back as it should."""
    return UserError(
        f"{path.name} does not read back as it was written.",
        found=found,
        do="nothing was left; check the disk and the memory of this machine before you try again",
    )


def _in_hub_cache(target: Path, folder: Path) -> bool:
    """Whether a file is one of the contents that snapshots of the hub's cache link to."""
    if folder.parent.name == "snapshots" and target.parent == folder.parent.parent / "blobs":
        return True
    return target.parent.name == "blobs" and target.parent.parent.name.startswith("models--")
