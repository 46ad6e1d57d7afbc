"""llama.cpp itself, by its Python package xllamacpp in an environment of its own, for slow tests and benchmarks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "KVW_LLAMA_PYTHON"
"""Environment variable with the Python of an environment that has xllamacpp."""
SECONDS = 900
PROGRAM = """
import json, os, sys
import xllamacpp
given = json.load(sys.stdin)
settings = xllamacpp.CommonParams()
settings.model.path, settings.n_ctx, settings.n_parallel, settings.verbosity = given["model"], 2048, 1, -1
settings.cpuparams.n_threads, settings.use_jinja = 1, True
adapters = []
for path in given["adapters"]:
    adapter = xllamacpp.CommonAdapterLoraInfo()
    adapter.path, adapter.scale = path, 1.0
    adapters.append(adapter)
settings.lora_adapters = adapters
server, replies = xllamacpp.Server(settings), []
for question in given["questions"]:
    message = {"role": "user", "content": question}
    asked = {"messages": [message], "temperature": 0, "top_k": 1, "max_tokens": 40}
    reply = server.handle_chat_completions(asked)
    reply = json.loads(reply) if isinstance(reply, str) else reply
    replies.append(reply["choices"][0]["message"]["content"])
print(json.dumps(replies), flush=True)
os._exit(0)  # its threads do not end by themselves
"""


def ask(python: str, model: Path, questions: Sequence[str], adapters: Sequence[Path] = ()) -> list[str]:
    """What a GGUF file replies in llama.cpp, greedily, at most 40 tokens each.

    Args:
        python: The Python that has xllamacpp.
        model: The file.
        questions: Each is asked by itself.
        adapters: LoRA adapters that are loaded beside it.

    Raises:
        subprocess.CalledProcessError: The engine could not load or run them.
    """
    given = {"model": str(model), "adapters": list(map(str, adapters)), "questions": list(questions)}
    done = subprocess.run(
        [python, "-c", PROGRAM], input=json.dumps(given), capture_output=True, text=True, timeout=SECONDS, check=True
    )
    replies: list[str] = json.loads(done.stdout.splitlines()[-1])
    return replies
