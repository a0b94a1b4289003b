"""The limits that a container or a job scheduler sets on this process: cgroup v2, then v1."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_UNLIMITED_BYTES = 1 << 60
"""cgroup v1 writes "no limit" as a number near 2⁶³."""


@dataclass(frozen=True)
class Limits:
    """What the cgroups allow; None is no limit. `memory_used_bytes` leaves out the page cache that can be dropped."""

    cores: float | None = None
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None


def read_limits(root: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> Limits:
    """The tightest limits over this process's cgroup and those above it. Never raises; what cannot be read is None."""
    cores: list[float] = []
    memory: list[tuple[int, int | None]] = []
    for folder, version in _folders(root, process):
        if version == 2:
            quota = _words(folder / "cpu.max")
            if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit() and int(quota[1]):
                cores.append(int(quota[0]) / int(quota[1]))
            limit = _number(folder / "memory.max")
            used, cache = _number(folder / "memory.current"), _stat(folder, "inactive_file")
        else:
            quota_us = _number(folder / "cpu.cfs_quota_us")
            period_us = _number(folder / "cpu.cfs_period_us")
            if quota_us and period_us and quota_us > 0:
                cores.append(quota_us / period_us)
            limit = _number(folder / "memory.limit_in_bytes")
            used, cache = _number(folder / "memory.usage_in_bytes"), _stat(folder, "total_inactive_file")
        if limit is not None and limit < _UNLIMITED_BYTES:
            memory.append((limit, None if used is None else max(0, used - cache)))
    tightest = min(memory, key=lambda m: m[0] - (m[1] or 0)) if memory else (None, None)
    return Limits(min(cores) if cores else None, tightest[0], tightest[1])


def whole_cores(limits: Limits, available: int) -> int:
    """Cores that can work at once: `available`, or the quota where that is smaller; at least 1."""
    return max(1, min(available, math.ceil(limits.cores))) if limits.cores else max(1, available)


def _folders(root: Path, process: Path) -> Iterator[tuple[Path, int]]:
    try:
        lines = process.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        parts = line.split(":", 2)
        if len(parts) != 3:
            continue
        _, controllers, path = parts
        if not controllers:
            bases, version = [root], 2
        else:
            wanted = [c for c in controllers.split(",") if c in ("cpu", "memory")]
            bases, version = [root / name for name in {controllers, *wanted} if wanted], 1
        for base in bases:
            folder = base / path.lstrip("/")
            while True:
                yield folder, version
                if folder == base or base not in folder.parents:
                    break
                folder = folder.parent


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return []


def _number(file: Path) -> int | None:
    words = _words(file)
    try:
        return int(words[0]) if words else None
    except ValueError:
        return None  # "max"


def _stat(folder: Path, name: str) -> int:
    words = _words(folder / "memory.stat")
    try:
        return int(words[words.index(name) + 1])
    except (ValueError, IndexError):
        return 0
