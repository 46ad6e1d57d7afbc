"""Time and memory of a run."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import PreTrainedModel

from kvw.models.placement import accelerators, describe_devices
from kvw.models.saving import parameter_bytes
from kvw.processes import current
from kvw.progress import Progress, Reporter
from kvw.records.run import CostPart


class Stopwatch:
    """Times the stages of a run and passes their progress on."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, title: str) -> Iterator[Progress]:
        """Report and time a stage."""
        start = time.perf_counter()
        with self._reporter.stage(title) as progress:
            yield progress
        self.seconds[title] = round(time.perf_counter() - start, 3)

    def costs(self, model: PreTrainedModel) -> CostPart:
        """What the run has cost so far."""
        return CostPart(
            device=describe_devices(model),
            seconds=self.seconds,
            peak_memory_bytes=peak_memory(model),
            model_bytes=parameter_bytes(model),
            processes=current().size,
        )


def peak_memory(model: PreTrainedModel) -> dict[str, int]:
    """Largest memory use so far in bytes: resident memory of the process and what each accelerator had allocated."""
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    for device in accelerators(model):
        backend = torch.get_device_module(device)
        if hasattr(backend, "max_memory_allocated"):
            peak[str(device)] = int(backend.max_memory_allocated(device))
    return peak
