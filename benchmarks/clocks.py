"""Seconds and peak memory on a CPU or a GPU."""

import gc
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

GIB = 2**30


class Clock:
    """Of a device; on a CPU the memory is what the process has taken since the clock was made."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._gpu = device.type == "cuda"
        self._own = 0.0
        if not self._gpu:
            self._own = self.held()

    def seconds(self, task: Callable[[], Any]) -> float:
        """Of a task, from an idle device to an idle one."""
        self._wait()
        started = time.perf_counter()
        task()
        self._wait()
        return time.perf_counter() - started

    def rest(self) -> None:
        """Lets go of what nobody holds; the peak starts anew from here."""
        gc.collect()
        if self._gpu:
            self._wait()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark

    def held(self) -> float:
        """GiB in use."""
        if self._gpu:
            return torch.cuda.memory_allocated(self.device) / GIB
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / GIB - self._own

    def peak(self) -> float:
        """GiB in use at most since `rest`."""
        if self._gpu:
            return torch.cuda.max_memory_allocated(self.device) / GIB
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) * 1024 / GIB - self._own

    def reserved(self) -> float | None:
        """GiB that the GPU's allocator held at most; None on a CPU."""
        return torch.cuda.max_memory_reserved(self.device) / GIB if self._gpu else None

    def _wait(self) -> None:
        if self._gpu:
            torch.cuda.synchronize(self.device)
