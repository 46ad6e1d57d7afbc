"""The steps of the Dockerfile, run in a fresh folder in place of a fresh machine, without a network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACES = ("/wheels", "/cache", "/work")
"""Folders of the image; here they lie in the fresh folder."""


@dataclass(frozen=True)
class Step:
    """An instruction and what follows it."""

    name: str
    rest: str


def steps() -> list[Step]:
    """The instructions, in their order."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [Step(*line.split(maxsplit=1)) for line in lines]


class Image:
    """A folder that stands for the image: its files, a virtual environment as its Python, and its variables.

    Args:
        folder: A new folder.
        context: What is sent to the build.
    """

    def __init__(self, folder: Path, context: Path) -> None:
        self.root, self.context, self.directory = folder / "root", context, folder / "root"
        self.root.mkdir(parents=True)
        subprocess.run([sys.executable, "-m", "venv", folder / "python"], check=True)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "KVW_"))}
        self.environment = kept | {"PATH": f"{folder}/python/bin:/usr/bin:/bin", "PIP_CONFIG_FILE": os.devnull}
        self.entry: list[str] = []

    def here(self, text: str) -> str:
        """The text with places of the image as they are in the folder."""
        for place in PLACES:
            text = re.sub(rf"(?<![\w.]){place}(?=[\s/'\"]|$)", f"{self.root}{place}", text)
        return text

    def run(self, command: str) -> str:
        """Run a shell command as the image would, with no network; returns what it printed."""
        done = subprocess.run(
            ["unshare", "--map-root-user", "--net", "sh", "-c", self.here(command)],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def take(self, step: Step) -> None:
        """Do one step."""
        if step.name == "COPY":
            source, target = step.rest.split()
            shutil.copytree(self.context / source, self.here(target))
        elif step.name == "RUN":
            self.run(step.rest)
        elif step.name == "ENV":
            for entry in step.rest.split():
                name, _, value = entry.partition("=")
                self.environment[name] = self.here(value)
        elif step.name == "WORKDIR":
            self.directory = Path(self.here(step.rest))
            self.directory.mkdir(exist_ok=True)
        elif step.name == "ENTRYPOINT":
            self.entry = json.loads(step.rest)
        elif step.name not in ("ARG", "FROM", "USER"):
            raise AssertionError(f"nobody knows how to try {step.name}")
