"""What a prediction of memory consists of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

KIB = 1024
MIB = 1024**2
GIB = 1024**3

MAPPED = "weights being read"
"""The host's share that is the weight files' pages, which the system takes back as soon as it needs them."""

Confidence = Literal["good", "fair", "low"]


@dataclass(frozen=True)
class Part:
    """One share of the memory, in bytes."""

    name: str
    bytes: int


def all_bytes(parts: Iterable[Part]) -> int:
    """Bytes of all `parts` together."""
    return sum(part.bytes for part in parts)


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted memory, in bytes. `parts` are those of the device that trains: the GPU, or the host where there is none."""

    parts: tuple[Part, ...]
    gpu_reserved_bytes: int = 0
    """What torch reserves on the GPU at its peak; 0 without a GPU."""
    host_parts: tuple[Part, ...] = ()
    disk_parts: tuple[Part, ...] = ()
    confidence: Confidence = "good"
    remarks: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        """All that the training takes of its device, the CUDA context included."""
        return all_bytes(self.parts)

    @property
    def gpu_total_bytes(self) -> int:
        """What the driver shows; 0 without a GPU."""
        return self.total_bytes if self.gpu_reserved_bytes else 0

    @property
    def host_bytes(self) -> int:
        """Resident memory of the worker at its peak, as the system counts it."""
        return all_bytes(self.host_parts)

    @property
    def host_needed_bytes(self) -> int:
        """The share of it that cannot be taken back: all but the mapped pages of the weight files."""
        return all_bytes(part for part in self.host_parts if part.name != MAPPED)

    @property
    def disk_bytes(self) -> int:
        return all_bytes(self.disk_parts)
