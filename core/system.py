"""Snapshots of this machine: GPUs, processor, memory, disk. A reading that is missing is None, never 0."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from . import cgroup, paths
from .text import one_line


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, as NVML reads it. Sizes in bytes."""

    index: int
    name: str
    total_bytes: int | None = None
    used_bytes: int | None = None
    driver_bytes: int = 0
    """What the driver keeps for itself (some 480 MiB on an H100): neither used nor free, as nvidia-smi counts."""
    utilization_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    driver: str = ""
    uuid: str = ""
    throttling: tuple[str, ...] | None = None
    """Why it runs slower than it could (`throttle_reasons`)."""

    @property
    def free_bytes(self) -> int | None:
        if self.total_bytes is None or self.used_bytes is None:
            return None
        return max(0, self.total_bytes - self.used_bytes - self.driver_bytes)


@dataclass(frozen=True)
class Machine:
    """The machine at one moment. `cores` respects CPU affinity and cgroup limits; memory respects cgroups."""

    cores: int
    cpu_percent: float | None
    """Of the whole machine, since the snapshot before; None in the first."""
    memory_total_bytes: int
    memory_available_bytes: int
    disk_free_bytes: int | None
    gpus: tuple[Gpu, ...] = ()

    @property
    def has_gpu(self) -> bool:
        return bool(self.gpus)

    @property
    def freest_gpu(self) -> Gpu | None:
        """The GPU with the most free memory; None where there is none."""
        return max(self.gpus, key=lambda gpu: gpu.free_bytes or 0, default=None)

    @property
    def free_bytes(self) -> int:
        """Memory that a run could take now: the freest GPU's, or the host's where there is none."""
        free = [g.free_bytes for g in self.gpus if g.free_bytes is not None]
        return max(free) if free else self.memory_available_bytes

    @property
    def total_bytes(self) -> int:
        total = [g.total_bytes for g in self.gpus if g.total_bytes is not None]
        return max(total) if total else self.memory_total_bytes


def snapshot(disk: Path | None = None) -> Machine:
    """Reads the machine now (a few milliseconds; NVML is opened once). `disk` names the file system to look at, the
    runs' folder by default. Safe from any thread; raises nothing."""
    limits = cgroup.read_limits()
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    if limits.memory_bytes is not None and limits.memory_bytes < total:
        total = limits.memory_bytes
        available = min(available, total - (limits.memory_used_bytes or 0))
    return Machine(
        cores=cgroup.whole_cores(limits, usable_cores()),
        cpu_percent=_cpu_percent(),
        memory_total_bytes=total,
        memory_available_bytes=max(0, available),
        disk_free_bytes=disk_free_bytes(disk if disk is not None else paths.runs()),
        gpus=_nvml.gpus(),
    )


def all_gpus() -> tuple[Gpu, ...]:
    """Every GPU of the machine, also those that CUDA_VISIBLE_DEVICES hides. Raises nothing."""
    return _nvml.gpus(hidden=True)


def usable_cores() -> int:
    """Cores that this process may run on, by its affinity where the system has one."""
    with contextlib.suppress(AttributeError, OSError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def computes_bf16() -> bool:
    """Whether the processor computes in bfloat16. On one that does not Unsloth trains in 32 bit, unless UNSLOTH_CPU_BF16
    says otherwise [unsloth_zoo 2026.10, cpu/runtime.py]."""
    told = os.environ.get("UNSLOTH_CPU_BF16", "").strip().lower()
    if told in ("0", "false", "no", "off", "1", "true", "yes", "on"):
        return told in ("1", "true", "yes", "on")
    return not _cpu_flags().isdisjoint(("amx_bf16", "avx512_bf16", "bf16"))


@functools.cache
def _cpu_flags() -> frozenset[str]:
    """What the first processor can do, in the system's words; empty where it does not tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            line = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return frozenset()
    return frozenset(line.lower().partition(":")[2].split())


def disk_free_bytes(path: Path) -> int | None:
    """Free space where `path` is, or would be made; None where that cannot be told."""
    for folder in (path, *path.absolute().parents):
        try:
            return psutil.disk_usage(str(folder)).free
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            return None
    return None


_cpu_seen = False


def _cpu_percent() -> float | None:
    global _cpu_seen
    try:
        percent = psutil.cpu_percent(interval=None)
    except OSError:
        return None
    first, _cpu_seen = not _cpu_seen, True
    return None if first else percent


def memory_info(nvml: Any, handle: Any) -> Any:
    """NVML's memory of one GPU (`total`, `used`, `free` in bytes), as nvidia-smi shows it. Raises nvml.NVMLError.

    NVML's older answer counts what the driver keeps for itself as used; it is taken only from a driver that has no other.
    """
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError, AttributeError, TypeError):
        return nvml.nvmlDeviceGetMemoryInfo(handle)


THROTTLE_REASONS = (
    (0x04, "power limit"),
    (0x08, "hardware slowdown"),
    (0x20, "heat"),
    (0x40, "heat"),
    (0x80, "power brake"),
)
"""Bits of NVML's clocks throttle (now: event) reasons that mean less than full speed, as nvml.h names them."""


def throttle_reasons(bits: int) -> tuple[str, ...]:
    """Why a card runs slower than it could, in words; nothing for one that idles or runs at the clock that was set."""
    return tuple(dict.fromkeys(words for bit, words in THROTTLE_REASONS if bits & bit))


class _Nvml:
    """NVML, opened at the first question; a machine without it has no GPUs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened = False
        self._library: Any = None
        self._driver = ""

    def gpus(self, hidden: bool = False) -> tuple[Gpu, ...]:
        with self._lock:
            if not self._opened:
                self._opened = True
                self._open()
            if self._library is None:
                return ()
            count = self._ask(self._library.nvmlDeviceGetCount) or 0
            found = [self._gpu(index) for index in range(count) if hidden or self._visible(index)]
            return tuple(gpu for gpu in found if gpu is not None)

    def _open(self) -> None:
        try:
            import pynvml
        except (ImportError, OSError):
            return
        try:
            pynvml.nvmlInit()
        except (pynvml.NVMLError, OSError, AttributeError):  # no library, no driver, an old driver
            return
        self._library = pynvml
        self._driver = self._words(self._ask(pynvml.nvmlSystemGetDriverVersion))

    def _gpu(self, index: int) -> Gpu | None:
        nvml = self._library
        handle = self._ask(nvml.nvmlDeviceGetHandleByIndex, index)
        if handle is None:
            return None
        memory = self._ask(memory_info, nvml, handle)
        load = self._ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        temperature = self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        power = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
        limit = self._ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
        slowed = self._ask(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        return Gpu(
            index=index,
            name=self._words(self._ask(nvml.nvmlDeviceGetName, handle)) or f"GPU {index}",
            total_bytes=None if memory is None else int(memory.total),
            used_bytes=None if memory is None else int(memory.used),
            driver_bytes=0 if memory is None else int(getattr(memory, "reserved", 0)),
            utilization_percent=None if load is None else float(load.gpu),
            temperature_celsius=None if temperature is None else float(temperature),
            power_watts=None if power is None else power / 1000,
            power_limit_watts=None if limit is None else limit / 1000,
            driver=self._driver,
            uuid=self._words(self._ask(lambda: nvml.nvmlDeviceGetUUID(handle))),
            throttling=None if slowed is None else throttle_reasons(int(slowed)),
        )

    def _visible(self, index: int) -> bool:
        """Whether CUDA_VISIBLE_DEVICES leaves this GPU to us. Ids other than numbers are matched by UUID."""
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        if named is None:
            return True
        wanted = [name.strip() for name in named.split(",") if name.strip()]
        if str(index) in wanted:
            return True
        if all(name.lstrip("-").isdigit() for name in wanted):
            return False
        handle = self._ask(self._library.nvmlDeviceGetHandleByIndex, index)
        uuid = self._words(self._ask(self._library.nvmlDeviceGetUUID, handle)) if handle is not None else ""
        return any(uuid.startswith(name) for name in wanted)

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        """One reading, or None: any of them may be missing on a card, in a container, under MIG."""
        try:
            return question(*arguments)
        except (self._library.NVMLError, AttributeError, ValueError, OSError):
            return None

    @staticmethod
    def _words(value: Any) -> str:
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        return one_line(value, 80) if isinstance(value, str) else ""


_nvml = _Nvml()
