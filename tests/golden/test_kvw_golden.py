"""Our KVW against tensors computed by the paper authors' own code.

Further cases of the same layout run with ``KVW_GOLDEN_CASES=DIRECTORY pytest tests/golden``.
"""

import copy
import functools
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, PreTrainedModel

import kvw
from kvw.methods.kvw.weaken import Step
from kvw.models.finding import find_value_matrices
from kvw.models.value_matrix import MatrixKey

HERE = Path(__file__).parent / "cases"
ROOTS = [HERE, *(Path(extra) for extra in os.environ.get("KVW_GOLDEN_CASES", "").split(os.pathsep) if extra)]
CASES = [case.parent for root in ROOTS for case in sorted(root.glob("*/case.json"))]
TOLERANCE = {"float32": {"rtol": 1e-5, "atol": 1e-7}, "bfloat16": {"rtol": 2**-7, "atol": 2**-9}}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

pytestmark = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@functools.cache
def load(folder: Path) -> PreTrainedModel:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)


class Golden:
    def __init__(self, case: Path, dtype: str) -> None:
        self.settings = json.loads((case / "case.json").read_text())
        self.layers = (self.settings["start_layer"], self.settings["end_layer"])
        self.dtype = dtype
        self.model = copy.deepcopy(load(case / "model")).to(DTYPES[dtype])
        self.inputs = load_file(case / "inputs.safetensors")
        self.expected = load_file(case / "expected.safetensors")

    def batches(self, split: str) -> list[dict[str, torch.Tensor]]:
        batches: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in self.inputs.items():
            name, index, tensor = key.split(".", 2)
            if name == split:
                batches.setdefault(int(index), {})[tensor] = value
        return [batches[index] for index in sorted(batches)]

    def layer_count(self) -> int:
        return self.model.config.get_text_config().num_hidden_layers

    def assert_equal(self, name: str, actual: torch.Tensor) -> None:
        expected = self.expected[f"{self.dtype}.{name}"]
        torch.testing.assert_close(
            actual.float(), expected.float(), **TOLERANCE[self.dtype], msg=lambda text: f"{name}: {text}"
        )


def weaken(golden: Golden, parity: bool) -> tuple[kvw.Edit, list[Step]]:
    steps: list[Step] = []
    edit = kvw.weaken(
        golden.model,
        golden.batches("forget"),
        golden.batches("retain"),
        kvw.KvwSettings(gamma=golden.settings["gamma"], layers=golden.layers, seed=None, parity=parity),
        on_step=steps.append,
    )
    return edit, steps


@pytest.mark.parametrize(("dtype", "parity"), [("float32", False), ("float32", True), ("bfloat16", True)])
def test_every_tensor_of_the_run(case, dtype, parity):
    golden = Golden(case, dtype)
    edit, steps = weaken(golden, parity)
    assert len(steps) == golden.settings["steps"]
    for step in steps:
        for key, coefficients in step.coefficients.items():
            golden.assert_equal(f"step{step.number}.forget_coefficients.{key.layer}", coefficients)
            golden.assert_equal(f"step{step.number}.gates.{key.layer}", step.gates[key])
    edit.fold(golden.model)
    for matrix in find_value_matrices(golden.model):
        golden.assert_equal(f"final_down_proj.{matrix.key.layer}", matrix.module.weight)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_retain_coefficients_of_all_layers(case, dtype):
    golden = Golden(case, dtype)
    statistics = kvw.measure(golden.model, golden.batches("retain"), layers=(0, golden.layer_count() - 1))
    for layer in range(golden.layer_count()):
        golden.assert_equal(f"retain_coefficients.{layer}", statistics.coefficients(MatrixKey(layer)))


@pytest.mark.thorough
def test_coefficients_of_the_weakened_model_in_layers_outside_the_range(case):
    """Attaching what is weakened so far and measuring is the same as the progressive loop."""
    golden = Golden(case, "float32")
    batches = golden.batches("forget")
    everything = (0, golden.layer_count() - 1)
    for number, batch in enumerate(batches):
        golden_so_far = Golden(case, "float32")
        if number:
            edit = kvw.weaken(
                golden_so_far.model,
                batches[:number],
                golden.batches("retain"),
                kvw.KvwSettings(gamma=golden.settings["gamma"], layers=golden.layers, seed=None),
            )
            edit.attach(golden_so_far.model)
        statistics = kvw.measure(golden_so_far.model, [batch], layers=everything)
        for layer in range(golden.layer_count()):
            golden.assert_equal(f"step{number}.forget_coefficients.{layer}", statistics.coefficients(MatrixKey(layer)))


def test_bfloat16_exact_agrees_at_step_0_and_not_in_the_end(case):
    """In-place rounding changes the algorithm, so the exact mode must leave the authors' bfloat16 weights behind."""
    golden = Golden(case, "bfloat16")
    edit, steps = weaken(golden, parity=False)
    for key, coefficients in steps[0].coefficients.items():
        golden.assert_equal(f"step0.forget_coefficients.{key.layer}", coefficients)
    edit.fold(golden.model)
    differs = [
        not torch.equal(matrix.module.weight, golden.expected[f"bfloat16.final_down_proj.{matrix.key.layer}"])
        for matrix in find_value_matrices(golden.model)
        if golden.layers[0] <= matrix.key.layer <= golden.layers[1]
    ]
    assert all(differs)
