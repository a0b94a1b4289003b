"""One line a phase: rewritten in place in a terminal, plain lines now and then anywhere else."""

from __future__ import annotations

import shutil
import sys
import time

QUIET_SECONDS = 20.0


def duration(seconds: float) -> str:
    """A length of time as a person says it: `43 s`, `2 min 3 s`."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


class Display:
    """Shows the phases of an install on standard output."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._label = ""
        self._started = self._shown = 0.0

    def note(self, text: str) -> None:
        """Print a line that stays."""
        print(f"finetui: {text}", flush=True)

    def phase(self, label: str) -> None:
        """Begin a phase."""
        self._label = label
        self._started = self._shown = time.monotonic()
        if self._live:
            self._rewrite("…")

    def update(self, detail: str) -> None:
        """Say how far the phase is; in a terminal at most twice a second, elsewhere every 20 seconds."""
        now = time.monotonic()
        if now - self._shown < (0.5 if self._live else QUIET_SECONDS):
            return
        self._shown = now
        text = f"{detail} · {duration(now - self._started)}"
        if self._live:
            self._rewrite(text)
        else:
            print(self._line(text), flush=True)

    def end(self, result: str) -> None:
        """Finish the phase with what came of it."""
        text = f"{result} · {duration(time.monotonic() - self._started)}"
        if self._live:
            self._rewrite(text)
            print(flush=True)
        else:
            print(self._line(text), flush=True)

    def _line(self, text: str) -> str:
        return f"  {self._label:<28} {text}"

    def _rewrite(self, text: str) -> None:
        width = max(20, shutil.get_terminal_size().columns - 1)
        print(f"\r\x1b[2K{self._line(text)[:width]}", end="", flush=True)
