"""What statistics and edits depend on, as digests that can be compared part by part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from kvw.data.example import Example
from kvw.data.images import image_digest
from kvw.errors import UserError
from kvw.files import write_text
from kvw.measuring.cache import cache_directory


def weights_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a checkpoint's weight files.

    Digests of single files are remembered in the cache directory under path, size and modification time, so a large
    checkpoint is read once.

    Raises:
        UserError: The folder holds no weight file.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} holds no weights.", do="kvw reads safetensors files only")
    with ThreadPoolExecutor() as pool:
        digests = list(pool.map(_file_digest, files))
    return digest([path.name for path in files], digests)


def examples_digest(examples: Iterable[Example]) -> str:
    """SHA-256 over questions, answers and image bytes; the order of the examples does not matter."""
    return digest(sorted(example_digest(example) for example in examples))


def example_digest(example: Example) -> str:
    """SHA-256 over question, answer and image bytes of one example."""
    return digest(example.question, example.answer, [image_digest(image) for image in example.images])


def processor_parts(processor: Any) -> dict[str, str]:
    """Digests of what a processor does to text and pictures: prompt template, tokenizer, image settings."""
    image_processor = getattr(processor, "image_processor", None)
    tokenizer = getattr(processor, "tokenizer", processor)
    return {
        "prompt template": digest(str(processor.chat_template)),
        "tokenizer": digest(tokenizer.backend_tokenizer.to_str()),
        "image settings (pixel limits)": digest(image_processor.to_dict() if image_processor else None),
    }


def digest(*parts: Any) -> str:
    """SHA-256 of values that JSON can hold (others by their text), as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode("utf-8")).hexdigest()


def _file_digest(path: Path) -> str:
    real = path.resolve()
    state = real.stat()
    memory = cache_directory() / "digests" / digest(str(real), state.st_size, state.st_mtime_ns)
    if memory.is_file():
        return memory.read_text("utf-8")
    with real.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    write_text(memory, found)
    return found
