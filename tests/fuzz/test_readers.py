"""Every reader of files that others wrote ends in success or in one plain message, within bounds on time and memory.

``make fuzz`` gives each reader many more inputs than the suite does.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests import edit_files
from tests.fuzz.bounded import Outcome, bounded, written
from tests.fuzz.inputs import HUGE, JUNK, mutated_bytes, mutated_json

from kvw.bench.cost.recipe import read_cost_recipe
from kvw.bench.recipe import read_recipe
from kvw.data import Example, check_images, prepare, read_examples
from kvw.data.images import load_image
from kvw.edits import export_ia3, import_adapter, load_edit
from kvw.edits.edit import Edit
from kvw.edits.gates import GateEdit
from kvw.edits.low_rank import Directions, LowRankEdit
from kvw.evaluation.evaluation import evaluate
from kvw.evaluation.loaded import Loaded
from kvw.evidence.envelope import Envelope, read_envelope
from kvw.evidence.statement import read_statement
from kvw.measuring.statistics import Statistics
from kvw.models.finding import find_value_matrices
from kvw.models.loading import Checkpoint, find_checkpoint, skeleton
from kvw.progress import SILENT
from kvw.retain.neighbours import neighbour_questions, read_names
from kvw.runs.apply import apply
from kvw.runs.inspect import inspect
from kvw.toy import checkpoint as toy_checkpoint

pytestmark = pytest.mark.thorough

INPUTS = int(os.environ.get("KVW_FUZZ", "0"))
RECIPES = Path(__file__).parents[2] / "recipes"
TOY = toy_checkpoint("vanilla")
CONFIGURATIONS = [*["config.json"] * 4, "generation_config.json", "processor_config.json", "tokenizer_config.json"]
TOML_VALUES = ["-1", "[]", "{}", '""', "nan", HUGE, "[" * 3000, "true", "1e400", "[1, 2, 3]", "1979-05-27"]
ROWS = [
    {"question": "Who is this?", "answer": "Ann Lee", "image": "a.png", "id": "1", "subject": "Ann"},
    {"question": "Where was Ann born?", "answer": "Riga", "images": ["a.png"], "subject": "Ann", "year": 1990},
]


def inputs(few: int) -> Callable[[Any], Any]:
    """So many inputs in the suite, the same every time; with KVW_FUZZ as many as it says."""
    return settings(
        max_examples=INPUTS or few,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where inputs are written; holds the picture that the data names."""
    path = tmp_path_factory.mktemp("inputs")
    Image.new("RGB", (32, 24), (200, 30, 30)).save(path / "a.png")
    return path


@pytest.fixture
def check_end(outcomes: dict[str, list[Outcome]]) -> Callable[[str, Callable[[], object]], None]:
    """Runs a reader on one input and looks at how it ended."""

    def run(reader: str, work: Callable[[], object]) -> None:
        found = bounded(work)
        outcomes[reader].append(found)
        assert found.kind in ("success", "message"), found.detail
        if found.kind == "message":
            assert found.detail.strip()
            assert len(found.detail) < 3000, "a message that nobody can read"

    return run


def _jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _csv() -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["question", "answer", "images", "subject"])
    writer.writerow(["Who is this?", "Ann Lee", '["a.png"]', "Ann"])
    writer.writerow(["Say, who?", 'The "one", Ann', "a.png", "Ann"])
    return text.getvalue().encode()


def _parquet() -> bytes:
    out = io.BytesIO()
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    rows = [{"question": "Who?", "answer": "Ann", "image": {"bytes": png.getvalue(), "path": "a.png"}, "n": 1}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


def _xlsx() -> bytes:
    book, out = openpyxl.Workbook(), io.BytesIO()
    for row in (["question", "answer", "image", "subject"], ["Who is this?", "Ann Lee", "a.png", "Ann"]):
        book.active.append(row)
    book.save(out)
    return out.getvalue()


TALK = {
    "messages": [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who is this?"}]},
        {"role": "assistant", "content": "Ann Lee"},
    ],
    "images": ["a.png"],
}


def _read_data(path: Path) -> None:
    check_images(read_examples(path))


@inputs(4)
@given(data=st.data())
def test_jsonl(data: st.DataObject, folder: Path, check_end: Any) -> None:
    if data.draw(st.booleans()):
        content = data.draw(mutated_bytes(_jsonl(ROWS)))
    else:
        lines = [data.draw(mutated_json(row)) for row in ROWS]
        content = b"\n".join(line.replace(b"\n", b" ") for line in lines)
    path = written(folder / "x.jsonl", content)
    check_end("JSONL", lambda: _read_data(path))


@inputs(4)
@given(data=st.data())
def test_csv(data: st.DataObject, folder: Path, check_end: Any) -> None:
    path = written(folder / "x.csv", data.draw(mutated_bytes(_csv())))
    check_end("CSV", lambda: _read_data(path))


@inputs(2)
@given(content=mutated_bytes("# people\nBob Lee\n\n  Ren\u00e9e \u5f20\u4f1f\n".encode()))
def test_names(content: bytes, folder: Path, check_end: Any) -> None:
    path = written(folder / "names.txt", content)
    forget = [Example("Who is Ann?", "Ann Lee", metadata={"subject": "Ann"})]
    check_end("names", lambda: neighbour_questions(forget, read_names(path)))


@inputs(3)
@given(content=mutated_bytes(json.dumps(ROWS, indent=1).encode()))
def test_json(content: bytes, folder: Path, check_end: Any) -> None:
    path = written(folder / "x.json", content)
    check_end("JSON", lambda: _read_data(path))


@inputs(3)
@given(content=mutated_bytes(_xlsx()))
def test_xlsx(content: bytes, folder: Path, check_end: Any) -> None:
    path = written(folder / "x.xlsx", content)
    check_end("XLSX", lambda: _read_data(path))


@inputs(3)
@given(line=mutated_json(TALK))
def test_conversations(line: bytes, folder: Path, check_end: Any) -> None:
    path = written(folder / "x.jsonl", line.replace(b"\n", b" "))
    check_end("conversations", lambda: _read_data(path))


@inputs(4)
@given(content=mutated_bytes(_parquet()))
def test_parquet(content: bytes, folder: Path, check_end: Any) -> None:
    path = written(folder / "x.parquet", content)
    check_end("Parquet, bytes", lambda: _read_data(path))


@inputs(3)
@given(data=st.data())
def test_parquet_of_other_types(data: st.DataObject, folder: Path, check_end: Any) -> None:
    column = st.sampled_from(
        [
            pyarrow.array([2**62], pyarrow.duration("s")),
            pyarrow.array([2**62], pyarrow.timestamp("us")),
            pyarrow.array([b"\xff\xfe"], pyarrow.binary()),
            pyarrow.array([None], pyarrow.null()),
            pyarrow.array([[[["x"]]]]),
            pyarrow.array([1.5]),
            pyarrow.array([{"bytes": b"x", "path": None}]),
            pyarrow.array([{"bytes": None, "path": "a.png"}]),
            pyarrow.array(["x" * 100_000]),
            pyarrow.array(["a\x00b"]),
            pyarrow.array([True]),
        ]
    )
    names = ["question", "answer", "image", "id", "subject", "extra"]
    table = {name: data.draw(column) for name in names if data.draw(st.booleans())}
    path = folder / "y.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"answer": pyarrow.array(["x"]), **table}), path)
    check_end("Parquet, types", lambda: _read_data(path))


def _pictures() -> list[bytes]:
    found = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"):
        out = io.BytesIO()
        Image.new("RGB", (40, 30), (9, 99, 200)).save(out, kind)
        found.append(out.getvalue())
    return [*found, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", b"\x00\x00\x00\x20ftypavif" + bytes(40)]


@inputs(5)
@given(data=st.data())
def test_pictures(data: st.DataObject, folder: Path, check_end: Any) -> None:
    picture = data.draw(mutated_bytes(data.draw(st.sampled_from(_pictures()))))
    if data.draw(st.booleans()):
        check_end("pictures in the data", lambda: load_image(picture, "row 1"))
    else:
        path = written(folder / "p.png", picture)
        check_end("picture files", lambda: load_image(path, "row 1"))


@inputs(2)
@given(
    size=st.sampled_from([(1, 65_000), (65_000, 1), (13_000, 13_000), (1, 1), (3, 5000), (30_000, 2), (5000, 5000)]),
    mode=st.sampled_from(["1", "L", "RGB", "RGBA", "P"]),
)
def test_pictures_of_any_size(size: tuple[int, int], mode: str, folder: Path, check_end: Any) -> None:
    path = folder / f"{size[0]}x{size[1]}-{mode}.png"
    if not path.exists():
        Image.new(mode, size).save(path, compress_level=1)
    row = {"question": "Who?", "answer": "Ann", "image": path.name}
    data = written(folder / "sizes.jsonl", _jsonl([row]))
    check_end("picture sizes", lambda: _read_data(data))


@inputs(2)
@given(data=st.data())
def test_pictures_in_text(data: st.DataObject, folder: Path, check_end: Any) -> None:
    encoded = base64.b64encode(data.draw(st.sampled_from(_pictures()))).decode()
    prefix = data.draw(st.sampled_from(["", "data:image/png;base64,", "data:,", "data:image/png;base64", "file://"]))
    text = data.draw(mutated_bytes((prefix + encoded).encode())).decode("utf-8", errors="replace")
    path = written(folder / "b.jsonl", _jsonl([{"question": "Who?", "answer": "Ann", "image": text}]))
    check_end("base64", lambda: _read_data(path))


def _edits() -> dict[str, Edit]:
    keys = [matrix.key for matrix in find_value_matrices(skeleton(Checkpoint(TOY, "toy")))]
    width = find_value_matrices(skeleton(Checkpoint(TOY, "toy")))[0].width
    torch.manual_seed(0)
    gates = {key: -torch.rand(width) for key in keys}
    directions = {key: Directions(torch.randn(width, 2), torch.randn(width, 2), -torch.rand(2)) for key in keys}
    return {"gates": GateEdit(gates), "low rank": LowRankEdit(directions)}


@pytest.fixture(scope="module")
def edits(folder: Path) -> dict[str, bytes]:
    """Edit files of the toy model."""
    found = {}
    for name, edit in _edits().items():
        edit.save(folder / f"{name}.safetensors")
        found[name] = (folder / f"{name}.safetensors").read_bytes()
    return found


def _use_edit(path: Path) -> None:
    edit = load_edit(path)
    edit.describe()
    edit.check_model(skeleton(Checkpoint(TOY, "toy")))


@inputs(5)
@given(data=st.data())
def test_edits(data: st.DataObject, folder: Path, edits: dict[str, bytes], check_end: Any) -> None:
    content = edits[data.draw(st.sampled_from(sorted(edits)))]
    length = int.from_bytes(content[:8], "little")
    if data.draw(st.booleans()):
        header = data.draw(mutated_json(json.loads(content[8 : 8 + length])))
        content = len(header).to_bytes(8, "little") + header + content[8 + length :]
    else:
        content = data.draw(mutated_bytes(content))
    path = written(folder / "edit.safetensors", content)
    check_end("edits, bytes", lambda: _use_edit(path))


@inputs(4)
@given(data=st.data())
def test_edits_of_other_values(data: st.DataObject, folder: Path, edits: dict[str, bytes], check_end: Any) -> None:
    kind = data.draw(st.sampled_from(sorted(edits)))
    tensors = safetensors.torch.load(edits[kind])
    metadata: dict[str, Any] = {"method": "subspace", "settings": {"mu": 1.0}, "base_model": "toy", "versions": {}}
    name = data.draw(st.sampled_from(sorted(tensors)))
    value = data.draw(
        st.sampled_from(
            [
                torch.tensor(float("nan")),
                torch.zeros(0),
                torch.tensor(0.0),
                torch.full((64,), float("inf")),
                torch.zeros(4, 4, dtype=torch.complex64),
                torch.zeros(64).to(torch.float8_e4m3fn),
                torch.zeros(64, dtype=torch.int8),
                torch.ones(64, dtype=torch.bool),
                torch.full((64,), 3.0),
                torch.zeros(1, 1, 1, 1),
            ]
        )
    )
    if data.draw(st.booleans()):
        tensors[name] = value
    else:
        del tensors[name]
    if data.draw(st.booleans()):
        metadata[data.draw(st.sampled_from([*metadata, "parents", "other"]))] = data.draw(st.sampled_from(JUNK))
    path = edit_files.write(folder / "values.safetensors", kind, tensors, **metadata)
    check_end("edits, values", lambda: _use_edit(path))


@inputs(3)
@given(data=st.data())
def test_adapters(data: st.DataObject, folder: Path, edits: dict[str, bytes], check_end: Any) -> None:
    home = folder / "adapter"
    if not home.exists():
        export_ia3(
            load_edit(written(folder / "gates.safetensors", edits["gates"])), skeleton(Checkpoint(TOY, "t")), home
        )
        shutil.copytree(home, folder / "whole")
    name = data.draw(st.sampled_from(["adapter_config.json", "adapter_model.safetensors"]))
    content = (folder / "whole" / name).read_bytes()
    shutil.copytree(folder / "whole", home, dirs_exist_ok=True)
    how = mutated_json(json.loads(content)) if name.endswith(".json") else mutated_bytes(content)
    written(home / name, data.draw(how))
    check_end("adapters", lambda: import_adapter(home, skeleton(Checkpoint(TOY, "toy"))))


@inputs(3)
@given(data=st.data())
def test_statistics(data: st.DataObject, folder: Path, check_end: Any) -> None:
    keys = [matrix.key for matrix in find_value_matrices(skeleton(Checkpoint(TOY, "toy")))]
    path = folder / "statistics.safetensors"
    Statistics({key: torch.ones(8, dtype=torch.float64) for key in keys}, dict.fromkeys(keys, 3), {"data": "x"}).save(
        path
    )
    changed = written(folder / "changed.safetensors", data.draw(mutated_bytes(path.read_bytes())))
    check_end("statistics", lambda: Statistics.load(changed))


@inputs(4)
@given(data=st.data())
def test_recipes(data: st.DataObject, folder: Path, check_end: Any) -> None:
    recipe = data.draw(st.sampled_from(sorted(RECIPES.glob("*.toml")) + sorted((RECIPES / "cost").glob("*.toml"))))
    content = recipe.read_bytes()
    if data.draw(st.booleans()):
        content = data.draw(mutated_bytes(content))
    else:
        line = data.draw(st.sampled_from([line for line in content.splitlines() if b"=" in line]))
        value = data.draw(
            st.sampled_from(
                ["-1", "[]", "{}", '""', "nan", HUGE, "[" * 3000, "true", "1e400", "[1, 2, 3]", "1979-05-27"]
            )
        )
        content = content.replace(line, line.split(b"=")[0] + b"= " + value.encode())
    path = written(folder / "r.toml", content)
    cost = recipe.parent.name == "cost"
    check_end("recipes", lambda: read_cost_recipe(path) if cost else read_recipe(path))


@pytest.fixture(scope="module")
def copied(folder: Path) -> Path:
    """A copy of the toy checkpoint whose files are exchanged."""
    shutil.copytree(TOY, folder / "toy")
    return folder / "toy"


def _ask(copied: Path) -> None:
    loaded = Loaded.load(find_checkpoint(str(copied)), "cpu")
    example = Example("Who is this?", "Ann Lee")
    prepare([example], loaded.processor)
    evaluate(loaded.model, loaded.processor, {"x": [example]}, max_new_tokens=3)


def _restored(copied: Path) -> None:
    for path in TOY.iterdir():
        if path.suffix != ".safetensors":
            shutil.copyfile(path, copied / path.name)
    for path in copied.iterdir():
        if not (TOY / path.name).exists():
            path.unlink()


@inputs(4)
@given(data=st.data())
def test_configurations(data: st.DataObject, copied: Path, check_end: Any) -> None:
    _restored(copied)
    name = data.draw(st.sampled_from(CONFIGURATIONS))
    written(copied / name, data.draw(mutated_json(json.loads((TOY / name).read_text()))))
    check_end(f"checkpoint, {name}", lambda: _ask(copied))
    if name == "config.json":
        check_end("checkpoint, inspect", lambda: inspect(find_checkpoint(str(copied))))


@inputs(2)
@given(data=st.data())
def test_indices(data: st.DataObject, copied: Path, folder: Path, edits: dict[str, bytes], check_end: Any) -> None:
    _restored(copied)
    names = safetensors.torch.load_file(TOY / "model.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(list(names)[:6], "model.safetensors")}
    written(copied / "model.safetensors.index.json", data.draw(mutated_json(index)))
    moved = data.draw(st.booleans())
    if moved:
        (copied / "model.safetensors").rename(copied / "model-00001-of-00001.safetensors")
    edit = written(folder / "e.safetensors", edits["gates"])
    out = folder / "applied"
    shutil.rmtree(out, ignore_errors=True)
    try:
        check_end("checkpoint, index", lambda: apply(load_edit(edit), find_checkpoint(str(copied)), out, SILENT))
    finally:
        if moved:
            (copied / "model-00001-of-00001.safetensors").rename(copied / "model.safetensors")


@inputs(2)
@given(data=st.data())
def test_chat_templates(data: st.DataObject, copied: Path, check_end: Any) -> None:
    _restored(copied)
    hostile = [
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ 'x' * (10 ** 10) }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ messages[99].content }}",
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
        "{% if %}",
        "{{ undefined_name.x.y }}",
        "{{ ().__class__.__bases__ }}",
    ]
    template = (TOY / "chat_template.jinja").read_bytes()
    content = data.draw(st.one_of(mutated_bytes(template), st.sampled_from([text.encode() for text in hostile])))
    written(copied / "chat_template.jinja", content)
    check_end("checkpoint, template", lambda: _ask(copied))


def test_the_harness_sees_what_it_is_for() -> None:
    def hang() -> None:
        while True:
            pass

    def grow() -> None:
        bytearray(3 * 2**30)

    assert bounded(hang, seconds=1).kind == "hang"
    assert bounded(grow).kind == "memory"
    assert bounded(lambda: 1 / 0).kind == "traceback"
    assert bounded(lambda: os._exit(7)).kind == "killed"
    assert bounded(lambda: None).kind == "success"


STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [{"name": "run.json", "digest": {"sha256": "0" * 64}}],
    "predicateType": "urn:kvw:erasure:1",
    "predicate": {
        **dict.fromkeys(("kvw", "finished", "command", "method", "result", "edit"), "x"),
        **{"settings": {"mu": 1.5}, "asked": {}, "floor": 0.98, "kept": {"x": 1.0}, "results": {}, "language": None},
        "original": {"name": "x", "revision": "", "weights": "", "files": {"config.json": "x"}},
        "data": {"secret": "x", "forget": "x", "retain": "", "files": {"--forget": ["x"]}, "samples": "x"},
        "warnings": ["x"],
        "versions": {"kvw": "x"},
    },
}


@inputs(3)
@given(data=st.data())
def test_evidence(data: st.DataObject, folder: Path, check_end: Any) -> None:
    if data.draw(st.booleans()):
        content = data.draw(mutated_bytes(Envelope(json.dumps(STATEMENT).encode()).packed()))
    else:
        content = Envelope(data.draw(mutated_json(STATEMENT))).packed()
    path = written(folder / "evidence.json", content)
    check_end("evidence", lambda: read_statement(read_envelope(path).payload))
