"""The tiny model and its rows, and a watch on nvidia-smi while a run goes on."""

from __future__ import annotations

import subprocess
import threading
import time
from dataclasses import dataclass

from finetui.core.system import snapshot
from tests.worker.conftest import tiny_model as tiny_model
from tests.worker.conftest import tiny_rows as tiny_rows
from tests.worker.conftest import unsloth as unsloth

collect_ignore = [] if len(snapshot().gpus) > 1 else ["test_two_gpus.py"]
QUERY = "memory.total,memory.used,utilization.gpu,temperature.gpu,power.draw"


@dataclass(frozen=True)
class SmiReading:
    """What nvidia-smi showed at `ts` (seconds since the epoch). Memory in bytes."""

    ts: float
    total_bytes: int
    used_bytes: int
    utilization_percent: float
    temperature_celsius: float
    power_watts: float


class SmiWatch:
    """Asks nvidia-smi about twice a second until closed."""

    def __init__(self) -> None:
        self.readings: list[SmiReading] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> SmiWatch:
        self._thread.start()
        return self

    def _watch(self) -> None:
        command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits", "-i", "0"]
        while not self._stop.wait(0.4):
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            total, used, busy, heat, power = (float(part) for part in line.split(","))
            mib = 1024**2
            self.readings.append(
                SmiReading(time.time(), int(total * mib), int(used * mib), busy, heat, power)
            )

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=10)

    def near(self, ts: float) -> SmiReading:
        """The reading closest to `ts`."""
        return min(self.readings, key=lambda reading: abs(reading.ts - ts))
