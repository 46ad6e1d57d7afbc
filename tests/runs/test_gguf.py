"""An edit in a GGUF file: what changes and what does not, what is refused, and what an adapter for it says."""

from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tests import gguf_files, text_models
from tests.checkpoints import gate_edit, low_rank_edit
from tests.runs.test_apply import Listening

import kvw
from kvw.cli import main
from kvw.edits import Directions, EditMetadata
from kvw.errors import UserError
from kvw.measuring.fingerprint import weights_digest
from kvw.models.checkpoint import find_checkpoint
from kvw.models.value_matrix import MatrixKey
from kvw.progress import SILENT
from kvw.runs import gguf as module
from kvw.runs.gguf import apply_gguf, export_gguf_lora

LOST = {"Q8_0": 0.05, "Q4_1": 0.3, "Q4_0": 0.3, "BF16": 0.05, "F16": 0.01, "F32": 1e-6}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return find_checkpoint(text_models.save("llama", tmp_path_factory.mktemp("models") / "llama"))


@pytest.fixture
def here(llama, monkeypatch):
    """The folder of the checkpoint as the current one, so that its name finds it."""
    monkeypatch.chdir(llama.folder.parent)


def known(edit, checkpoint):
    """The edit as a run on the checkpoint writes it."""
    edit.metadata = edit.metadata.model_copy(update={"model_fingerprint": weights_digest(checkpoint.folder)})
    return edit


def down(layer, values):
    return values[f"blk.{layer}.ffn_down.weight"]


@pytest.mark.parametrize("type_", LOST)
def test_the_edited_matrices_hold_the_edit_and_all_other_bytes_stay(llama, here, tmp_path, type_):
    source, out = gguf_files.write(tmp_path / "a.gguf", type_=type_), tmp_path / "b.gguf"
    edit = known(low_rank_edit(llama, 1, 2), llama)
    applied = apply_gguf(edit, source, out, SILENT)
    before, after = gguf_files.read(source), gguf_files.read(out)
    assert {one.name for one in applied.written} == {"blk.1.ffn_down.weight", "blk.2.ffn_down.weight"}
    assert {one.type for one in applied.written} == {type_}
    assert applied.tensors == len(before)
    assert all(abs(1 - one.share) < LOST[type_] for one in applied.written)
    for layer in (1, 2):
        directions = edit.directions[MatrixKey(layer)]
        weight, changed = (torch.tensor(np.array(down(layer, values))) for values in (before, after))
        here_, wanted = changed @ directions.patterns, (weight @ directions.patterns) * directions.log_gates.exp()
        lost, taken = (here_ - wanted).norm(), (wanted - weight @ directions.patterns).norm()
        assert lost < LOST[type_] * taken
    one, other = source.read_bytes(), out.read_bytes()
    place = {tensor.name: tensor for tensor in gguf.GGUFReader(source).tensors}
    spans = [(place[name.name].data_offset, place[name.name].n_bytes) for name in applied.written]
    for begin, size in spans:
        one = one[:begin] + bytes(size) + one[begin + size :]
        other = other[:begin] + bytes(size) + other[begin + size :]
    assert one == other


@pytest.mark.thorough
def test_a_float32_file_gets_the_weights_of_an_applied_checkpoint(llama, here, tmp_path):
    edit = known(low_rank_edit(llama, 0, 3), llama)
    edit.save(tmp_path / "edit.safetensors")
    apply_gguf(edit, gguf_files.write(tmp_path / "a.gguf", type_="F32"), tmp_path / "b.gguf", SILENT)
    kvw.apply(edit, llama, out=tmp_path / "model", check=False)
    from safetensors.torch import load_file

    folded = load_file(tmp_path / "model/model.safetensors")
    for layer in range(4):
        found = torch.tensor(np.array(down(layer, gguf_files.read(tmp_path / "b.gguf"))))
        assert torch.equal(found, folded[f"model.layers.{layer}.mlp.down_proj.weight"])


def test_without_adding_again_what_rounding_takes_much_of_an_edit_is_lost(llama, here, tmp_path, monkeypatch):
    source = gguf_files.write(tmp_path / "a.gguf")
    edit = known(low_rank_edit(llama, 1).scaled(0.2), llama)
    with_rounds = apply_gguf(edit, source, tmp_path / "b.gguf", SILENT).written[0].share
    monkeypatch.setattr("kvw.edits.requantised.ROUNDS", 0)
    told = Listening()
    without = apply_gguf(edit, source, tmp_path / "c.gguf", told).written[0].share
    assert without < 0.8 < 0.9 < with_rounds < 1.1
    assert f"leaves {without:.0%} of the edit" in told.warnings[0]


def test_gates_leave_the_bytes_of_blocks_without_a_scaled_vector(llama, here, tmp_path):
    source, out = gguf_files.write(tmp_path / "a.gguf"), tmp_path / "b.gguf"
    content = bytearray(source.read_bytes())
    place = next(one for one in gguf.GGUFReader(source).tensors if one.name == "blk.1.ffn_down.weight").data_offset
    content[place + 4 : place + 20] = b"\x65" * 16  # a first block that the library would never write
    source.write_bytes(content)
    gates = torch.zeros(128)
    gates[40] = -3.0  # in the second block of 32 of every row
    edit = known(kvw.GateEdit({MatrixKey(1): gates}, EditMetadata(base_model="llama")), llama)
    apply_gguf(edit, source, out, SILENT)
    one, other = (
        next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == "blk.1.ffn_down.weight").data
        for path in (source, out)
    )
    blocks = (one != other).reshape(64, 4, -1).any(-1)
    assert blocks[:, 1].mean() > 0.8
    assert not blocks[:, [0, 2, 3]].any()
    before, after = (down(1, gguf_files.read(path)) for path in (source, out))
    assert np.linalg.norm(after[:, 40]) < 0.3 * np.linalg.norm(before[:, 40])


def test_attention_and_conv1d_are_found_where_they_lie(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gpt2 = find_checkpoint(text_models.save("gpt2", tmp_path / "gpt2"))
    source = gguf_files.write(tmp_path / "a.gguf", "gpt2", "F32")
    model, _ = text_models.build("gpt2")
    keys = {MatrixKey(1): 128, MatrixKey(2, attention=True): 32}
    found = {}
    for key, width in keys.items():
        basis = torch.linalg.qr(torch.randn(width, 2)).Q
        found[key] = Directions(basis, basis, torch.tensor([-2.0, -0.5]))
    edit = known(kvw.LowRankEdit(found, metadata=EditMetadata(base_model="gpt2")), gpt2)
    apply_gguf(edit, source, tmp_path / "b.gguf", SILENT)
    edit.fold(model)
    state, after = model.state_dict(), gguf_files.read(tmp_path / "b.gguf")
    assert np.allclose(down(1, after), state["transformer.h.1.mlp.c_proj.weight"].T, atol=1e-6)
    assert np.allclose(after["blk.2.attn_output.weight"], state["transformer.h.2.attn.c_proj.weight"].T, atol=1e-6)


def test_experts_are_changed_one_by_one(tmp_path):
    values = np.random.default_rng(0).standard_normal((3, 16, 32)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    gguf_files.add(writer, "blk.0.ffn_down_exps.weight", values, "Q8_0")
    gguf_files.close(writer)
    gates = torch.full((32,), -1.0)
    edit = kvw.GateEdit({MatrixKey(0, 1): gates})
    apply_gguf(edit, tmp_path / "a.gguf", tmp_path / "b.gguf", Listening(), other_weights=True)
    before, after = (gguf_files.read(tmp_path / f"{name}.gguf")["blk.0.ffn_down_exps.weight"] for name in "ab")
    assert np.array_equal(before[[0, 2]], after[[0, 2]])
    assert np.allclose(after[1], before[1] * np.exp(-1), atol=0.01)
    with pytest.raises(UserError, match="scales experts"):
        export_gguf_lora(edit, tmp_path / "a.gguf", tmp_path / "c.gguf", Listening(), other_weights=True)


def test_types_that_cannot_be_written_are_told_with_what_to_do(llama, tmp_path):
    values = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    gguf_files.add(writer, "blk.0.ffn_down.weight", values, "Q4_K")
    gguf_files.close(writer)
    basis = torch.eye(256)[:, :2].contiguous()
    edit = kvw.LowRankEdit({MatrixKey(0): Directions(basis, basis, torch.tensor([-1.0, -1.0]))})
    with pytest.raises(UserError, match="stored as Q4_K, which the package gguf can read and not write") as told:
        apply_gguf(edit, tmp_path / "a.gguf", tmp_path / "b.gguf", Listening(), other_weights=True)
    assert "gguf-lora" in told.value.do
    assert "llama-quantize" in told.value.do
    assert not (tmp_path / "b.gguf").exists()
    export_gguf_lora(edit, tmp_path / "a.gguf", tmp_path / "c.gguf", Listening(), other_weights=True)
    assert (tmp_path / "c.gguf").exists()


def stranger(path, source):
    model = gguf_files.read(source)
    weights = np.frombuffer(path.read_bytes(), np.uint8).copy()
    tensor = next(one for one in gguf.GGUFReader(path).tensors if one.name == "blk.1.ffn_down.weight")
    other = gguf.quants.quantize(np.ascontiguousarray(down(1, model)[::-1]), tensor.tensor_type).view(np.uint8).ravel()
    weights[tensor.data_offset : tensor.data_offset + tensor.n_bytes] = other
    path.write_bytes(weights.tobytes())


def test_another_model_and_a_file_with_the_edit_are_refused_unless_allowed(llama, here, tmp_path):
    source = gguf_files.write(tmp_path / "a.gguf")
    edit = known(low_rank_edit(llama, 1), llama)
    other = Path(shutil.copy(source, tmp_path / "other.gguf"))
    stranger(other, source)
    with pytest.raises(UserError, match=r"other.gguf is not llama, on which the edit was made"):
        apply_gguf(edit, other, tmp_path / "b.gguf", SILENT)
    apply_gguf(edit, source, tmp_path / "edited.gguf", SILENT)
    with pytest.raises(UserError, match="has the edit in it already"):
        apply_gguf(edit, tmp_path / "edited.gguf", tmp_path / "b.gguf", SILENT)
    assert not (tmp_path / "b.gguf").exists()
    told = Listening()
    apply_gguf(edit, other, tmp_path / "b.gguf", told, other_weights=True)
    assert "with other weights" in told.warnings[0]


def test_what_cannot_be_compared_is_said(llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no folder has the checkpoint's name
    told = Listening()
    apply_gguf(known(low_rank_edit(llama, 1), llama), gguf_files.write(tmp_path / "a.gguf"), tmp_path / "b.gguf", told)
    assert "is not on this machine: only shapes say" in told.warnings[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"general.type": "adapter"}, "holds no language model"),
        ({"general.type": "mmproj"}, "holds no language model"),
        ({"split.count": 3}, "a part of a model"),
    ],
)
def test_files_that_are_no_whole_model_are_refused(llama, tmp_path, change, message):
    source = gguf_files.write(tmp_path / "a.gguf", entries=change)
    with pytest.raises(UserError, match=message):
        apply_gguf(low_rank_edit(llama, 1), source, tmp_path / "b.gguf", SILENT)


def test_shapes_scales_and_kinds_that_do_not_fit_are_refused(llama, tmp_path):
    source, out = gguf_files.write(tmp_path / "a.gguf"), tmp_path / "b.gguf"
    basis = torch.eye(96)[:, :1].contiguous()
    narrow = kvw.LowRankEdit({MatrixKey(1): Directions(basis, basis, torch.tensor([-1.0]))})
    with pytest.raises(UserError, match=r"does not fit .*a.gguf \(llama\)") as told:
        apply_gguf(narrow, source, out, SILENT)
    assert "layer.1: 96 in the edit, 128 in the file" in told.value.found
    deep = kvw.GateEdit({MatrixKey(9): torch.full((128,), -1.0)})
    with pytest.raises(UserError) as told:
        apply_gguf(deep, source, out, SILENT)
    assert "layer.9: 128 in the edit, missing in the file" in told.value.found
    with pytest.raises(UserError, match="inverse of an edit"):
        apply_gguf(kvw.invert(gate_edit(llama, 1)), source, out, SILENT)
    trained = kvw.edits.WeightsEdit({"model.norm.weight": torch.ones(64)}, metadata=EditMetadata())
    with pytest.raises(UserError, match="cannot be written into a GGUF file") as told:
        apply_gguf(trained, source, out, SILENT)
    assert "convert_hf_to_gguf.py" in told.value.do
    writer = gguf.GGUFWriter(tmp_path / "scaled.gguf", "llama")
    gguf_files.add(writer, "blk.1.ffn_down.weight", np.ones((64, 128), np.float32), "Q8_0")
    gguf_files.add(writer, "blk.1.ffn_down.scale", np.ones(1, np.float32), "F32")
    gguf_files.close(writer)
    with pytest.raises(UserError, match="multiplied by numbers of its own"):
        apply_gguf(gate_edit(llama, 1), tmp_path / "scaled.gguf", out, SILENT)


@pytest.mark.parametrize("end", [3, 20, 200, 3000, -2000])
def test_a_file_that_was_cut_off_is_told(llama, tmp_path, end):
    source = gguf_files.write(tmp_path / "a.gguf")
    source.write_bytes(source.read_bytes()[:end])
    with pytest.raises(UserError, match="no intact GGUF file"):
        apply_gguf(low_rank_edit(llama, 1), source, tmp_path / "b.gguf", SILENT)


@pytest.mark.thorough
@pytest.mark.parametrize("place", ["inside", "elsewhere", "behind", "layout"])
def test_a_copy_that_is_not_what_was_written_does_not_appear(llama, here, tmp_path, monkeypatch, place):
    source, out = gguf_files.write(tmp_path / "a.gguf"), tmp_path / "b.gguf"
    write = module._write

    def damaging(edit, matrices, copy, reporter):
        found = write(edit, matrices, copy, reporter)
        first, size = min(found[1])[0], copy.stat().st_size
        begin = {"inside": first + 5, "elsewhere": first - 5, "behind": size - 1, "layout": size}
        content = bytearray(copy.read_bytes())
        content[begin[place] : begin[place] + 1] = bytes([(content + b"\0")[begin[place]] ^ 1])
        copy.write_bytes(content)
        return found

    monkeypatch.setattr(module, "_write", damaging)
    with pytest.raises(UserError, match="is not what was written"):
        apply_gguf(known(low_rank_edit(llama, 1), llama), source, out, SILENT)
    assert not out.exists()


def test_an_adapter_says_what_the_attached_edit_does(llama, here, tmp_path):
    source, out = gguf_files.write(tmp_path / "a.gguf"), tmp_path / "adapter.gguf"
    edit = known(low_rank_edit(llama, 1, 2), llama)
    size = export_gguf_lora(edit, source, out, SILENT)
    assert (size.rank, size.bytes) == (4, out.stat().st_size)
    reader = gguf.GGUFReader(out)
    fields = {name: reader.get_field(name).contents() for name in ("general.architecture", "general.type")}
    assert fields == {"general.architecture": "llama", "general.type": "adapter"}
    assert reader.get_field("adapter.type").contents() == "lora"
    alpha, tensors = reader.get_field("adapter.lora.alpha").contents(), gguf_files.read(out)
    assert set(tensors) == {f"blk.{layer}.ffn_down.weight.lora_{half}" for layer in (1, 2) for half in "ab"}
    for layer in (1, 2):
        name = f"blk.{layer}.ffn_down.weight"
        a, b = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
        assert a.shape[0] == b.shape[1] == 4
        scale = alpha / b.shape[1] if alpha else 1.0  # as llama.cpp scales it
        weight = torch.tensor(np.array(gguf_files.read(source)[name]))
        matrix = type("Matrix", (), {"key": MatrixKey(layer), "name": name, "vectors_first": False})
        wanted = edit.changed(matrix, weight)
        assert np.allclose(weight.numpy() + scale * (b @ a), wanted, atol=1e-5)


def test_the_commands_write_both_and_refuse_what_is_for_checkpoints(llama, here, tmp_path, capsys):
    source, file = gguf_files.write(tmp_path / "a.gguf"), tmp_path / "edit.safetensors"
    known(low_rank_edit(llama, 1), llama).save(file)

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, arguments)))
        printed = capsys.readouterr()
        return stop.value.code or 0, " ".join((printed.out + printed.err).split())

    code, said = run("apply", file, source, "--out", tmp_path / "b.gguf")
    assert (code, "1 of 38 tensors were changed and stored again as Q4_1" in said) == (0, True)
    code, said = run("edit", "export", file, source, "--format", "gguf-lora", "--out", tmp_path / "c.gguf")
    assert (code, "--lora" in said) == (0, True)
    for wrong, message in {
        ("apply", file, source, "--out", tmp_path / "b.gguf"): "exists",
        ("apply", file, source, "--out", source): "reads",
        ("apply", file, source, "--out", tmp_path / "d.bin"): "ends in .gguf",
        ("apply", file, source, "--out", tmp_path / "d.gguf", "--untouched", "hardlink"): "--untouched is for",
        ("apply", file, source, "--out", tmp_path / "d.gguf", "--no-check"): "--no-check is for",
        ("apply", file, source, "--out", tmp_path / "b.gguf", "--force"): "--force is for",
        ("apply", file, tmp_path / "no.gguf", "--out", tmp_path / "d.gguf"): "There is no file",
        ("edit", "export", file, llama.folder, "--format", "gguf-lora", "--out", "d.gguf"): "made for the GGUF file",
        ("edit", "export", file, source, "--format", "gguf-lora", "--out", "d.gguf", "--force"): "--force does not",
    }.items():
        code, said = run(*wrong)
        assert (code, message in said) == (2, True), said
    assert not (tmp_path / "d.gguf").exists()
