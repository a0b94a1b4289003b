"""Readings of the machine, about one a second, from a thread of the worker. A missing reading is None, never 0.

While a driver answers, it holds up the kernels that training launches (seen on an H200: steps that met a reading were some
30 ms longer). So what never changes is asked once, and where answers are slow there are fewer readings.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

from .. import system, text
from ..runs.events import Card, Device
from .events import EventWriter

SECONDS = 1.0
MOST_OF_THE_TIME = 0.01
"""The share of the time that readings may take; below it they come every `SECONDS`."""
MOST_SECONDS = 10.0
CARDS_EVERY = 5
"""The machine's other GPUs are in every so many readings."""
_T = TypeVar("_T")


class _Gpu:
    """This process's GPU through NVML, found by the UUID that torch gives, so CUDA_VISIBLE_DEVICES is respected."""

    def __init__(self) -> None:
        import pynvml
        import torch

        pynvml.nvmlInit()
        self._nvml: Any = pynvml
        index = torch.cuda.current_device()
        uuid = str(torch.cuda.get_device_properties(index).uuid)
        name = uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(name)
        self.uuid = name
        self.name = text.one_line(torch.cuda.get_device_name(index), 80)
        self.index = index
        self.power_limit = self.get(lambda nvml, h: nvml.nvmlDeviceGetEnforcedPowerLimit(h))
        self.fastest = self.get(lambda nvml, h: nvml.nvmlDeviceGetMaxClockInfo(h, nvml.NVML_CLOCK_SM))

    def get(self, call: Callable[[Any, Any], _T]) -> _T | None:
        """`call(nvml, handle)`, or None where the driver has no answer."""
        try:
            return call(self._nvml, self._handle)
        except (self._nvml.NVMLError, AttributeError):  # an older library has not every question
            return None

    def close(self) -> None:
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()


def pause(took: float) -> float:
    """Seconds until the next reading, after one that took so many."""
    return min(max(SECONDS, took / MOST_OF_THE_TIME), MOST_SECONDS)


class Monitor:
    """Writes a Device event at once and then about every second, until closed. Costs well under 1 % of one core."""

    def __init__(self, writer: EventWriter, disk: Path) -> None:
        self._children = False
        self._writer = writer
        self._disk = disk
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._gpu: _Gpu | None = None
        self._readings = 0
        self._torch: Any = None
        self._thread = threading.Thread(target=self._watch, name="machine", daemon=True)

    def start(self) -> Monitor:
        self.open()
        self._thread.start()
        return self

    def open(self) -> Monitor:
        """Finds the GPU, so that `read` can be called."""
        import torch

        self._torch = torch
        if torch.cuda.is_available():
            try:
                self._gpu = _Gpu()
            except Exception as error:  # NVML may be absent in a container; torch's own counts remain
                print(f"finetui: no NVML here: {error}")
        psutil.cpu_percent()
        self._process.cpu_percent()
        return self

    def _watch(self) -> None:
        while True:
            began = time.monotonic()
            self._emit()
            if self._stop.wait(pause(time.monotonic() - began)):
                return

    def _emit(self) -> None:
        try:
            self._writer.emit(self.read())
        except Exception as error:  # readings may fail, the run may not
            print(f"finetui: a reading of the machine failed: {error}")

    def read(self) -> Device:
        """The machine now."""
        memory = psutil.virtual_memory()
        resident = self._resident()
        try:
            disk_free: int | None = shutil.disk_usage(self._disk).free
        except OSError:
            disk_free = None
        host = {
            "host_used_bytes": int(memory.total - memory.available),
            "host_total_bytes": int(memory.total),
            "cpu_percent": float(psutil.cpu_percent()),
            "disk_free_bytes": disk_free,
        }
        if not self._torch.cuda.is_available():
            return Device(
                "cpu",
                name="CPU",
                total_bytes=int(memory.total),
                used_bytes=int(memory.total - memory.available),
                run_bytes=resident,
                others_bytes=max(0, int(memory.total - memory.available) - resident),
                **host,
            )
        return self._read_gpu(host)

    def _resident(self) -> int:
        held = int(self._process.memory_info().rss)
        for child in self._process.children(recursive=True) if self._children else ():
            with contextlib.suppress(psutil.Error):
                held += int(child.memory_info().rss)
        return held

    def _cards(self, mine: str) -> tuple[Card, ...]:
        """The other GPUs, now and then."""
        self._readings += 1
        if self._readings % CARDS_EVERY != 1:
            return ()
        return tuple(
            Card(
                gpu.index,
                gpu.name,
                gpu.total_bytes,
                gpu.used_bytes,
                gpu.utilization_percent,
                gpu.temperature_celsius,
                gpu.power_watts,
                gpu.power_limit_watts,
                gpu.throttling,
            )
            for gpu in system.all_gpus()
            if gpu.uuid and gpu.uuid != mine
        )

    def _read_gpu(self, host: dict[str, Any]) -> Device:
        cuda = self._torch.cuda
        index = cuda.current_device()
        reserved, peak = int(cuda.memory_reserved(index)), int(cuda.max_memory_reserved(index))
        gpu = self._gpu
        if gpu is None:
            total = int(cuda.get_device_properties(index).total_memory)
            return Device(
                f"cuda:{index}",
                name=text.one_line(cuda.get_device_name(index), 80),
                total_bytes=total,
                reserved_bytes=reserved,
                peak_reserved_bytes=peak,
                **host,
            )
        memory = gpu.get(system.memory_info)
        processes = gpu.get(lambda nvml, h: nvml.nvmlDeviceGetComputeRunningProcesses(h))
        mine = [p.usedGpuMemory for p in processes or () if p.pid == os.getpid() and p.usedGpuMemory]
        run = int(mine[0]) if mine else None  # a container often hides the list, or shows other pids
        used = int(memory.used) if memory else None
        rates = gpu.get(lambda nvml, h: nvml.nvmlDeviceGetUtilizationRates(h))
        heat = gpu.get(lambda nvml, h: nvml.nvmlDeviceGetTemperature(h, nvml.NVML_TEMPERATURE_GPU))
        power = gpu.get(lambda nvml, h: nvml.nvmlDeviceGetPowerUsage(h))
        slowed = gpu.get(lambda nvml, h: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(h))
        clock = gpu.get(lambda nvml, h: nvml.nvmlDeviceGetClockInfo(h, nvml.NVML_CLOCK_SM))
        return Device(
            f"cuda:{index}",
            name=gpu.name,
            total_bytes=int(memory.total) if memory else None,
            used_bytes=used,
            run_bytes=run,
            others_bytes=max(0, used - run) if used is not None and run is not None else None,
            reserved_bytes=reserved,
            peak_reserved_bytes=peak,
            utilization_percent=float(rates.gpu) if rates else None,
            temperature_celsius=float(heat) if heat is not None else None,
            power_watts=power / 1000 if power is not None else None,
            power_limit_watts=gpu.power_limit / 1000 if gpu.power_limit is not None else None,
            throttling=system.throttle_reasons(int(slowed)) if slowed is not None else None,
            clock_mhz=int(clock) if clock is not None else None,
            clock_limit_mhz=int(gpu.fastest) if gpu.fastest is not None else None,
            cards=self._cards(gpu.uuid),
            **host,
        )

    def exporting(self) -> None:
        """Writes the last reading of the training, which holds its peak. From then on the memory of the processes that this
        one starts counts too; looking for them takes some milliseconds."""
        self._emit()
        self._children = True

    def close(self) -> None:
        """Ends the thread and writes one last reading."""
        self._stop.set()
        self._thread.join(timeout=10)
        self._emit()
        if self._gpu is not None:
            self._gpu.close()
