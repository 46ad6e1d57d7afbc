"""``kvw env``: what a bug report needs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from kvw.cli import main
from kvw.runs import environment

BEFORE_DEVICES = """
import sys
from kvw.runs import environment
environment.devices = lambda: sys.exit("loaded: " + ", ".join({"torch", "transformers", "numpy"} & set(sys.modules)))
from kvw.cli import main
main(["env"])
"""


def printed(capsys, *options):
    with pytest.raises(SystemExit) as stopped:
        main(["env", *options])
    assert stopped.value.code in (None, 0)
    return capsys.readouterr().out


def test_versions_devices_and_the_cache_are_printed(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("KVW_CACHE", str(tmp_path))
    found = printed(capsys)
    row = next(line for line in found.splitlines() if line.startswith("torch "))
    assert torch.__version__.split("+")[0] in row
    assert f"cache: {tmp_path} (0 files, 0.0 MiB)" in found
    assert "cpu: " in found


def test_what_is_outside_of_the_tested_range_is_marked(capsys, monkeypatch):
    real = environment.metadata.version
    monkeypatch.setattr(environment.metadata, "version", lambda name: "99.0" if name == "peft" else real(name))
    row = next(line for line in printed(capsys).splitlines() if line.startswith("peft "))
    assert row.rstrip().endswith("newer than tested")


def test_as_json(capsys):
    found = json.loads(printed(capsys, "--json"))
    assert set(found) == {"kvw", "python", "platform", "packages", "cache", "devices"}
    torch_ = next(package for package in found["packages"] if package["name"] == "torch")
    assert torch_["version"] == environment.metadata.version("torch")
    assert set(torch_) == {"name", "version", "oldest", "newest", "verdict"}


@pytest.mark.thorough
def test_versions_are_printed_before_torch_is_loaded():
    done = subprocess.run([sys.executable, "-c", BEFORE_DEVICES], capture_output=True, text=True)
    assert done.stderr.strip() == "loaded:", done.stderr
    assert "transformers" in done.stdout
