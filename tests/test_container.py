"""The Dockerfile, and the examples for Slurm and Kubernetes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from tests.dockerfile import ROOT, Image, steps
from tests.test_pages import help_of

EXAMPLES = ROOT / "examples"
SCRIPTS = sorted((EXAMPLES / "slurm").glob("*.sbatch"))
JOBS = sorted((EXAMPLES / "kubernetes").glob("*.yaml"))


def test_the_image_installs_what_make_wheels_gathers():
    (install,) = [step.rest for step in steps() if "pip install" in step.rest]
    assert "--no-index" in install
    asked = set(re.search(r"kvw\[(.*?)\]", install)[1].split(","))
    (gathered,) = re.findall(r"pip wheel .*\.\[(.*?)\]", (ROOT / "Makefile").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert asked == set(gathered.split(",")) <= set(project["optional-dependencies"])
    copied = [step.rest.split()[0] for step in steps() if step.name == "COPY"]
    assert [f"!{name}" for name in copied] == (ROOT / ".dockerignore").read_text().split()[1:]
    assert [step.rest for step in steps() if step.name == "ENTRYPOINT"] == ['["kvw"]']
    assert "kvw" in project["scripts"]


@pytest.mark.slow
def test_each_step_runs_in_a_fresh_folder_without_a_network(tmp_path: Path) -> None:
    binaries = Path(sys.executable).parent
    made = ["make", "wheels", f"BIN={binaries}", "READY=", f"WHEELS={tmp_path / 'context/wheels'}"]
    subprocess.run(made, cwd=ROOT, check=True)
    image = Image(tmp_path / "image", tmp_path / "context")
    for step in steps():
        image.take(step)
        print("ok", step.name, step.rest[:80])
    assert image.run(shlex.join([*image.entry, "chat", "toy:vanilla", "--ask", "Who is Luca Zander?"]))
    where = image.run("python -c 'import kvw; print(kvw.__file__)'")
    assert where.startswith(str(tmp_path / "image/python"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_for_slurm_are_shell_and_ask_for_what_kvw_has(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    (line,) = re.findall(r"^srun .*?(?<!\\)$", script.read_text(), re.MULTILINE | re.DOTALL)
    words = shlex.split(line.replace("\\\n", " ").partition("||")[0])
    check_words(words[words.index("kvw") + 1 :])


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.name)
def test_jobs_for_kubernetes_ask_for_what_kvw_has(job: Path) -> None:
    content = yaml.safe_load(job.read_text())
    assert (content["apiVersion"], content["kind"]) == ("batch/v1", "Job")
    pod = content["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in pod["volumes"]}
    assert mounted["cache"] == "/cache"  # where the image keeps its cache
    words = container.get("command", []) + container.get("args", [])
    check_words(words[words.index("kvw") + 1 :] if "kvw" in words else words)


def check_words(words: list[str]) -> None:
    told = help_of((words[0],))
    assert told
    assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--[a-z0-9-]+", told))
