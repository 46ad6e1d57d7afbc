"""What is wrong in the command line or in the files is told before torch is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tests.edit_files import write_header

CASES = {
    "erase": {
        "model": "erase ./nowhere --forget good.jsonl --retain good.jsonl --out new",
        "model without configuration": "erase empty --forget good.jsonl --retain good.jsonl --out new",
        "configuration not JSON": "erase broken --forget good.jsonl --retain other.jsonl --out new",
        "no weights": "erase bare --forget good.jsonl --retain other.jsonl --out new",
        "toy": "erase toy:gone --forget good.jsonl --retain good.jsonl --out new",
        "model too long": "erase " + "m" * 5000 + " --forget good.jsonl --retain good.jsonl --out new",
        "forget": "erase toy:vanilla --forget gone.jsonl --retain good.jsonl --out new",
        "forget not JSON": "erase toy:vanilla --forget bad.jsonl --retain good.jsonl --out new",
        "retain": "erase toy:vanilla --forget good.jsonl --retain gone.jsonl --out new",
        "picture": "erase toy:vanilla --forget seen.jsonl --retain other.jsonl --out new --dry-run",
        "mark of a picture": "erase toy:vanilla --forget marked.jsonl --retain other.jsonl --out new",
        "picture to keep": "erase toy:vanilla --forget good.jsonl --retain seen.jsonl --out new",
        "no retain": "erase toy:vanilla --forget good.jsonl --retain-sources none --out new",
        "no such source": "erase toy:vanilla --forget good.jsonl --retain-sources web --out new",
        "keep": "erase toy:vanilla --forget good.jsonl --retain other.jsonl --keep 2 --out new",
        "neighbours": "erase toy:vanilla --forget good.jsonl --retain other.jsonl --neighbours gone.txt --out new",
        "same sets": "erase toy:vanilla --forget good.jsonl --retain good.jsonl --out new",
        "statistics": "erase toy:vanilla --method kvw --forget good.jsonl --retain gone.safetensors --out new",
        "statistics of another kind": "erase toy:vanilla --forget good.jsonl --retain edit.safetensors --out new",
        "eval": "erase toy:vanilla --forget good.jsonl --retain other.jsonl --eval x=gone.jsonl --out new",
        "eval without name": "erase toy:vanilla --forget good.jsonl --retain other.jsonl --eval gone.jsonl --out new",
        "eval of one name": "erase toy:vanilla --forget good.jsonl --retain other.jsonl --eval retain=other.jsonl "
        "--out new",
        "out": "erase toy:vanilla --forget good.jsonl --retain other.jsonl --out full",
        "out is an input": "erase toy:vanilla --forget full/x.jsonl --retain other.jsonl --out full --force",
        "out is a file": "erase toy:vanilla --forget good.jsonl --retain other.jsonl --out good.jsonl",
        "method": "erase toy:vanilla --method subspaec --forget good.jsonl --retain other.jsonl --out new",
        "setting": "erase toy:vanilla --set mew=1 --forget good.jsonl --retain other.jsonl --out new",
        "value": "erase toy:vanilla --set mu=-1 --forget good.jsonl --retain other.jsonl --out new",
        "layers": "erase toy:vanilla --layers 1-3 --forget good.jsonl --retain other.jsonl --out new",
        "limit": "erase toy:vanilla --eval-limit -1 --forget good.jsonl --retain other.jsonl --out new",
        "tokens": "erase toy:vanilla --max-new-tokens 0 --forget good.jsonl --retain other.jsonl --out new",
        "key": "erase toy:vanilla --forget good.jsonl --retain other.jsonl --out new --sign-key good.jsonl",
        "dry run": "erase toy:vanilla --dry-run --forget gone.jsonl --retain other.jsonl --out new",
    },
    "run": {
        "file": "run gone.toml",
        "no TOML": "run good.jsonl",
        "no command": "run bad.toml",
        "no model": "run request.toml",
    },
    "push": {"folder": "push gone a/b", "no mark": "push full a/b"},
    "worker": {
        "folder": "worker gone",
        "register": "worker empty --register gone.sqlite",
        "tries": "worker empty --retries -1",
    },
    "methods": {"name": "methods subspaec"},
    "measure": {
        "model": "measure ./nowhere --data good.jsonl --out new.safetensors",
        "data": "measure toy:vanilla --data gone.jsonl --out new.safetensors",
        "data not JSON": "measure toy:vanilla --data bad.jsonl --out new.safetensors",
        "ending": "measure toy:vanilla --data good.jsonl --out new.bin",
        "out": "measure toy:vanilla --data good.jsonl --out edit.safetensors",
    },
    "apply": {
        "model": "apply edit.safetensors ./nowhere --out new",
        "edit": "apply gone.safetensors toy:vanilla --out new",
        "edit of another kind": "apply other.safetensors toy:vanilla --out new",
        "no safetensors": "apply good.jsonl toy:vanilla --out new",
        "out": "apply edit.safetensors toy:vanilla --out full",
        "gguf": "apply edit.safetensors gone.gguf --out new.gguf",
        "gguf to": "apply edit.safetensors good.gguf --out new",
    },
    "evaluate": {
        "model": "evaluate ./nowhere --data good.jsonl",
        "no model": "evaluate --data good.jsonl",
        "data": "evaluate toy:vanilla --data gone.jsonl",
        "data of a server": "evaluate --endpoint http://localhost:1/v1 --data gone.jsonl",
        "edit": "evaluate toy:vanilla --data good.jsonl --edit gone.safetensors",
        "samples": "evaluate toy:vanilla --data good.jsonl --samples other.jsonl",
        "tokens": "evaluate toy:vanilla --data good.jsonl --max-new-tokens 0",
    },
    "audit": {
        "model": "audit ./nowhere --forget good.jsonl --out new",
        "no model": "audit --forget good.jsonl --out new",
        "model beside a server": "audit toy:vanilla --endpoint http://localhost:1/v1 --forget good.jsonl --out new",
        "data for a server": "audit --endpoint http://localhost:1/v1 --forget gone.jsonl --out new",
        "forget": "audit toy:vanilla --forget gone.jsonl --out new",
        "retain": "audit toy:vanilla --forget good.jsonl --retain gone.jsonl --out new",
        "original": "audit toy:vanilla --original ./nowhere --forget good.jsonl --out new",
        "gold": "audit toy:vanilla --gold ./nowhere --forget good.jsonl --out new",
        "edit": "audit toy:vanilla --edit gone.safetensors --forget good.jsonl --out new",
        "attack": "audit toy:vanilla --attacks askd --forget good.jsonl --out new",
        "no attack possible": "audit toy:vanilla --attacks photo --forget good.jsonl --out new",
        "rephrasings": "audit toy:vanilla --rephrasings other.jsonl --forget good.jsonl --out new",
        "number": "audit toy:vanilla --samples 0 --forget good.jsonl --out new",
        "threshold": "audit toy:vanilla --fail-above 2 --forget good.jsonl --out new",
        "out": "audit toy:vanilla --forget good.jsonl --out full",
    },
    "inspect": {
        "model": "inspect ./nowhere",
        "activations": "inspect activations ./nowhere --data good.jsonl --out new.html",
        "activations of no data": "inspect activations toy:vanilla --data gone.jsonl --out new.html",
        "activations to": "inspect activations toy:vanilla --data good.jsonl --out good.jsonl",
    },
    "sweep": {
        "model": "sweep layers ./nowhere --forget good.jsonl --out new",
        "forget": "sweep layers toy:vanilla --forget gone.jsonl --out new",
        "windows": "sweep layers toy:vanilla --forget good.jsonl --out new --windows some",
        "points": "sweep layers toy:vanilla --forget good.jsonl --out new --points 1",
        "strength": "sweep layers toy:vanilla --forget good.jsonl --out new --strength 0.5",
        "setting": "sweep layers toy:vanilla --forget good.jsonl --out new --gamma 1",
        "out": "sweep layers toy:vanilla --forget good.jsonl --out full",
    },
    "report": {"no run": "report empty"},
    "chat": {
        "model": "chat ./nowhere --ask x",
        "edit": "chat toy:vanilla --edit gone.safetensors --ask x",
        "picture": "chat toy:vanilla --image gone.png --ask x",
        "no picture": "chat toy:vanilla --image good.jsonl --ask x",
        "tokens": "chat toy:vanilla --max-new-tokens 0 --ask x",
    },
    "serve": {
        "model": "serve ./nowhere --allow-plain",
        "nothing": "serve toy:vanilla",
        "edit": "serve toy:vanilla --edit x=gone.safetensors",
        "name": "serve toy:vanilla --edit none=edit.safetensors",
        "default": "serve toy:vanilla --edit x=edit.safetensors --default y",
        "keys": "serve toy:vanilla --edit x=edit.safetensors --keys gone.json",
        "no keys": "serve toy:vanilla --edit x=edit.safetensors --keys good.jsonl",
        "log": "serve toy:vanilla --edit x=edit.safetensors --audit-log gone/log",
        "store": "serve toy:vanilla --edit x=edit.safetensors --secrets gone.json",
        "no store": "serve toy:vanilla --edit x=edit.safetensors --secrets good.jsonl",
    },
    "secrets": {
        "forget": "secrets build new.json --forget gone.jsonl --retain good.jsonl",
        "model": "secrets build new.json --forget good.jsonl --retain good.jsonl --model ./nowhere",
        "store": "secrets check gone.json good.jsonl",
        "files": "secrets check gone.json",
        "share": "secrets build new.json --forget good.jsonl --retain good.jsonl --false-fires 2",
    },
    "verify": {
        "evidence": "verify gone.json --model toy:vanilla",
        "nothing": "verify good.jsonl",
        "model": "verify good.jsonl --model ./nowhere",
        "original": "verify good.jsonl --original ./nowhere --model empty",
        "edit": "verify good.jsonl --edit gone.safetensors",
        "run": "verify good.jsonl --run gone",
        "data": "verify good.jsonl --data gone.jsonl",
        "key": "verify good.jsonl --model empty --public-key good.jsonl",
    },
    "evidence": {
        "run": "evidence sign gone --key good.jsonl",
        "no run": "evidence sign empty --key good.jsonl",
        "key": "evidence sign recorded --key good.jsonl",
    },
    "register": {
        "who": "register add",
        "no pseudonym": "register add --who a@b",
        "model": "register add --who x --holds ./nowhere --file new.sqlite",
        "run of it": "register add --who x --run gone --file new.sqlite",
        "dates": "register add --who x --received 2026-02-01 --due 2026-01-01 --file new.sqlite",
        "no date": "register add --who x --received soon --file new.sqlite",
        "register": "register list --file gone.sqlite",
        "no register": "register show 1 --file good.jsonl",
        "run": "register link 1 empty --file gone.sqlite",
        "outcome": "register close 1 --outcome maybe --file gone.sqlite",
        "closed": "register close 1 --file gone.sqlite",
        "retired": "register retire 00000000 --file gone.sqlite",
        "export": "register export --out x.txt --file gone.sqlite",
        "verify": "register verify --file gone.sqlite",
    },
    "keys": {
        "file": "keys ls gone.json",
        "no keys": "keys ls good.jsonl",
        "nothing": "keys add new.json anna",
        "nobody": "keys remove gone.json anna",
    },
    "demo": {"out": "demo --out full"},
    "data": {
        "check": "data check gone.jsonl",
        "check of a model": "data check good.jsonl --model ./nowhere",
        "retain": "data check good.jsonl --retain good.jsonl",
        "columns": "data check good.jsonl --columns x",
        "build": "data build gone.csv --out new",
        "build from a model": "data build --from-model ./nowhere --about x --out new",
        "build in a language": "data build good.jsonl --language xx --out new",
        "keep": "data keep gone.jsonl --model toy:vanilla --out new.safetensors",
        "keep with no key": "data keep good.jsonl --model toy:vanilla --out new.safetensors --key gone",
        "keep with no edit": "data keep good.jsonl --model toy:vanilla --out new.safetensors --edit gone",
        "keep nameless": "data keep good.jsonl --model toy:vanilla --out new.safetensors",
    },
    "edit": {
        "show": "edit show gone.safetensors",
        "show another kind": "edit show other.safetensors",
        "diff": "edit diff edit.safetensors gone.safetensors",
        "compose": "edit compose edit.safetensors gone.safetensors --out new.safetensors",
        "compose one": "edit compose edit.safetensors --out new.safetensors",
        "compose over": "edit compose edit.safetensors edit.safetensors --out other.safetensors",
        "anchor": "edit anchor gone.safetensors edit.safetensors toy:vanilla --out new.safetensors",
        "anchor model": "edit anchor edit.safetensors edit.safetensors ./nowhere --out new.safetensors",
        "anchored to": "edit anchor edit.safetensors edit.safetensors toy:vanilla --out full",
        "scale": "edit scale gone.safetensors --strength 0.5 --out new.safetensors",
        "scale beyond": "edit scale edit.safetensors --strength 2 --out new.safetensors",
        "mix": "edit mix gone.safetensors --share 0.5 --out new.safetensors",
        "invert": "edit invert edit.safetensors --out new.bin",
        "export": "edit export edit.safetensors ./nowhere --format ia3 --out new",
        "export for gguf": "edit export edit.safetensors toy:vanilla --format gguf-lora --out new.gguf",
        "export over": "edit export edit.safetensors toy:vanilla --format ia3 --out full",
        "import": "edit import empty toy:vanilla --out new.safetensors",
        "import to": "edit import adapter ./nowhere --out new.safetensors",
    },
    "bench": {
        "validate": "bench validate gone.toml",
        "run": "bench run gone.toml --out new",
        "run of an unknown key": "bench run bad.toml --out new",
        "run of no model": "bench run recipe.toml --out new",
        "run of no such recipe": "bench run toyy --out new",
        "table": "bench table gone",
        "plot": "bench plot gone --out new.svg",
        "plot of another form": "bench plot gone --out new.gif",
        "plot of no setting": "bench plot gone --kind curves --out new.svg",
        "recipes": "bench recipes --jsn",
        "attack": "bench attack gone",
        "attack of a kind": "bench attack gone --attacks int3",
        "calibrate": "bench calibrate gone",
        "calibrate to more than all": "bench calibrate gone --tau 2",
        "cost": "bench cost gone.toml --out new",
        "unlok": "bench unlok toy:vanilla --images gone --out new",
        "unlok without a model": "bench unlok ./nowhere --images empty --out new",
    },
}
HEAVY = {"torch", "transformers", "accelerate", "peft", "pandas", "matplotlib"}
PROGRAM = """
import contextlib, io, json, sys
from kvw.cli import main
for name, line in json.loads(sys.stdin.read()):
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(errors):
            main(line.split())
        code = 0
    except SystemExit as stop:
        code = stop.code
    print(json.dumps([name, code, errors.getvalue(), sorted(set(sys.modules) & set(sys.argv[1:]))]), flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with files that are as they should be, and others."""
    here = tmp_path_factory.mktemp("mistakes")
    row = json.dumps({"question": "Who?", "answer": "Anna"})
    for name, text in {
        "good.jsonl": row,
        "other.jsonl": row.replace("Anna", "Berta"),
        "bad.jsonl": row + "\n{",
        "seen.jsonl": json.dumps({"question": "Who?", "answer": "Carla", "image": "good.jsonl"}),
        "marked.jsonl": json.dumps({"question": "<image> Who?", "answer": "Carla"}),
        "bad.toml": "titel = 'x'",
        "recipe.toml": RECIPE,
        "request.toml": "command = 'erase'\nmodel = './nowhere'\nforget = ['good.jsonl']\nout = 'new'",
    }.items():
        (here / name).write_text(text + "\n")
    (here / "good.gguf").write_bytes(b"GGUF")
    for name in ("empty", "full", "adapter", "broken", "bare", "recorded"):
        (here / name).mkdir()
    (here / "broken/config.json").write_text("{")
    (here / "bare/config.json").write_text("{}")
    (here / "recorded/run.json").write_text("{}")
    (here / "full/x.jsonl").write_text(row + "\n")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (here / "adapter" / name).write_text("{}")
    write_header(here / "edit.safetensors", {"format": "kvw edit 3", "kind": "gates", "metadata": "{}"})
    write_header(here / "other.safetensors", {"format": "pt"})
    return here


RECIPE = """
title = "x"
[models]
vanilla = "./nowhere"
[benchmark]
name = "toy"
[[method]]
name = "kvw"
"""


def tell(folder, lines, heavy=()):
    """What each line of the command says, in one process: name, exit code, message, what is imported by then."""
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, *heavy, *HEAVY],
        input=json.dumps(lines),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    told = [json.loads(line) for line in found.stdout.splitlines()]
    assert [name for name, *_ in told] == [name for name, _ in lines], found.stderr
    return told


@pytest.mark.thorough
def test_mistakes_are_told_before_torch_is_imported(folder):
    """What one line imports stands beside the lines after it, too: the first that names it is to blame."""
    lines = [(f"{verb}: {name}", line) for verb, cases in CASES.items() for name, line in cases.items()]
    for name, code, message, imported in tell(folder, lines):
        assert (code, imported) == (2, []), (name, imported, message)
        assert "Traceback" not in message
        assert message.strip(), name


@pytest.mark.thorough
def test_a_path_is_told_from_an_id_without_the_library_of_the_hub(folder):
    lines = [("path", CASES["erase"]["model"]), ("id", "erase nobody/nothing --forget x --retain y --out new")]
    told = tell(folder, lines, ["huggingface_hub"])
    assert [(name, code, imported) for name, code, _, imported in told] == [
        ("path", 2, []),
        ("id", 2, ["huggingface_hub"]),
    ]
    assert "no such folder" in told[0][2]


def test_every_verb_is_looked_at():
    from kvw.cli import app

    verbs = {name for name in app if not name.startswith("-")}
    assert verbs <= CASES.keys() | {"env", "cache"}
    for group in ("data", "edit", "bench", "evidence", "register"):
        inner = {name for name in app[group] if not name.startswith("-")} - {"ls"}
        assert inner <= {line.split()[1] for line in CASES[group].values()}
