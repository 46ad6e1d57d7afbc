"""Time, FLOPs, memory and energy of a piece of work."""

from __future__ import annotations

import ctypes
import gc
import importlib
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import flop_counter
from torch.utils.flop_counter import FlopCounterMode

from kvw.models.value_matrix import linear_shape

KIBIBYTE = 1024
Shape = tuple[int, ...]
_formulas: Any = flop_counter


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return int(_formulas.sdpa_flop_count(query, key, value))


def _attention_backward(gradient: Shape, query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    return int(_formulas.sdpa_backward_flop_count(gradient, query, key, value))


ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Attention on the CPU, which torch's counter does not know, by its own formulas."""


class Meter:
    """Times stages and, if asked, counts their FLOPs.

    Args:
        device: Where the work is done; waited for at the ends of stages.
        counting: Count FLOPs; that slows everything down, so such times say nothing.

    Attributes:
        seconds: Seconds by stage.
        cpu_seconds: By stage: what the threads of this process computed. On a CPU with other work to do, this is the
            better measure.
        flops: Floating-point operations by stage.
    """

    def __init__(self, device: torch.device, *, counting: bool = False) -> None:
        self._device = device
        self._counter = FlopCounterMode(display=False, custom_mapping=ON_CPU) if counting else None
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.flops: dict[str, int] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; a stage may come several times. Stages do not nest."""
        wait_for(self._device)
        start, cpu_start = time.perf_counter(), time.process_time()
        with self._counter or nullcontext():
            yield
            wait_for(self._device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + time.process_time() - cpu_start
        counted = self._counter.get_total_flops() if self._counter else 0
        self.flops[name] = self.flops.get(name, 0) + int(counted)


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Callable[[], int]]:
    """Watch the memory that a block takes beyond what was in use before it.

    On an accelerator what torch's allocator handed out; on the CPU resident memory of the process, with what earlier
    work left unused given back before (on Linux; elsewhere the peak since the process started is taken for the state
    before, so the growth is a lower bound).

    Yields:
        A function that gives the largest growth in bytes, once the block has ended.
    """
    gc.collect()
    peaks: list[int] = []
    if device.type != "cpu":
        backend: Any = torch.get_device_module(device)
        wait_for(device)
        backend.empty_cache()
        backend.reset_peak_memory_stats(device)
        before = int(backend.memory_allocated(device))
        yield lambda: peaks[0]
        peaks.append(int(backend.max_memory_allocated(device)) - before)
        return
    _give_back_freed_memory()
    before = _restart_peak()
    yield lambda: peaks[0]
    peaks.append(max(0, _peak() - before))


def energy(device: torch.device) -> Callable[[], float] | None:
    """The device's energy meter in joules, from a start of its own; None where there is none that can be read.

    NVIDIA devices since Volta have one; it is read with the package ``nvidia-ml-py``.
    """
    if device.type == "cpu":
        return None
    properties = torch.get_device_module(device).get_device_properties(device)
    if not hasattr(properties, "uuid"):
        return None
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError:
        return None
    return lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000


@contextmanager
def counting_positions(layer: nn.Module) -> Iterator[list[int]]:
    """Count the positions that enter a decoder layer; yields a list with their number."""
    total = [0]

    def take(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        states: Tensor = arguments[0] if arguments else named["hidden_states"]
        total[0] += states.shape[:-1].numel()

    with layer.register_forward_pre_hook(take, with_kwargs=True):
        yield total


@contextmanager
def counting_matrix_flops(model: nn.Module) -> Iterator[list[int]]:
    """Count 2 P D: twice the weights of each linear map and convolution times the positions it gives out."""
    total = [0]

    def add(module: Any, _: Any, output: Tensor) -> None:
        outputs = module.weight.shape[0]
        total[0] += 2 * module.weight.numel() * (output.numel() // outputs)

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d) or linear_shape(module) is not None:
                hooks.enter_context(module.register_forward_hook(add))
        yield total


def wait_for(device: torch.device) -> None:
    """Wait until a device has done everything it was given."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)


def _give_back_freed_memory() -> None:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)


def _restart_peak() -> int:
    """Let the kernel forget the peak of this process; gives what is in use now."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * KIBIBYTE
    unit = 1 if sys.platform == "darwin" else KIBIBYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
