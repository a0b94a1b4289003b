"""Snapshots of this machine: GPUs, processor, memory, disk. A reading that is missing is None, never 0."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU, as NVML reads it. Sizes in bytes."""

    index: int
    name: str
    total_bytes: int | None = None
    used_bytes: int | None = None
    utilization_percent: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    driver: str = ""

    @property
    def free_bytes(self) -> int | None:
        if self.total_bytes is None or self.used_bytes is None:
            return None
        return self.total_bytes - self.used_bytes


@dataclass(frozen=True)
class Machine:
    """The machine at one moment. `cores` respects CPU affinity and cgroup limits; memory respects cgroups."""

    cores: int
    cpu_percent: float | None
    memory_total_bytes: int
    memory_available_bytes: int
    disk_free_bytes: int | None
    gpus: tuple[Gpu, ...] = ()

    @property
    def has_gpu(self) -> bool:
        return bool(self.gpus)

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
    runs' folder by default."""
    raise NotImplementedError
