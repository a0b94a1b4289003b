"""How soon the wizard is on the screen, against an empty Textual app, both in a real pty; and what its process weighs."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from .measure import FINETUI, Result, paired_ratio

EMPTY_APP = """
from textual.app import App
from textual.widgets import Static
class Empty(App):
    def compose(self):
        yield Static("nothing-here")
Empty().run()
"""
STEPS = ("Model", "Dataset", "LoRA", "Training")


@dataclass
class Terminal:
    """A process in a pty of 120 × 36, whose output is read as it comes."""

    command: Sequence[str]

    def __post_init__(self) -> None:
        self.seen = b""
        self.start = time.perf_counter()
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"}
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(self.command[0], list(self.command), environment)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 36, 120, 0, 0))

    def until(self, text: bytes, seconds: float = 60) -> float:
        """Seconds from the start until `text` has been written. Raises TimeoutError."""
        while text not in self.seen:
            ready, _, _ = select.select([self.fd], [], [], seconds)
            if not ready:
                raise TimeoutError(f"{text!r} did not appear in {self.seen[-400:]!r}")
            self.seen += os.read(self.fd, 65536)
        return time.perf_counter() - self.start

    def press(self, keys: bytes) -> None:
        self.seen = b""
        os.write(self.fd, keys)

    def settle(self, seconds: float) -> None:
        """Reads what comes for a while, so that the process is never held up by a full pty."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            if select.select([self.fd], [], [], 0.1)[0]:
                self.seen += os.read(self.fd, 65536)

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


def _first_paint(command: Sequence[str], marker: bytes) -> float:
    terminal = Terminal(command)
    try:
        return terminal.until(marker)
    finally:
        terminal.end()


def measure() -> list[Result]:
    with tempfile.TemporaryDirectory() as home:
        os.environ["FINETUI_HOME"] = home
        ratio, ours, theirs = paired_ratio(
            lambda: _first_paint([FINETUI], b"Quit"),
            lambda: _first_paint([sys.executable, "-c", EMPTY_APP], b"nothing-here"),
            rounds=9,
        )
        results = [
            Result("first paint", ratio, 2.5, "×", f"wizard {ours:.2f} s, empty Textual app {theirs:.2f} s")
        ]
        terminal = Terminal([FINETUI, "demo"])
        try:
            terminal.until(b"Quit")
            process = psutil.Process(terminal.pid)
            peak = process.memory_info().rss
            for _ in STEPS:
                terminal.press(b"\r")
                terminal.settle(3)
                peak = max(peak, process.memory_info().rss)
                if _ == STEPS[2]:
                    break  # the next Enter would train
            results.append(
                Result("wizard's memory", peak / 2**20, 150, "MiB", "resident, home to LoRA with the demo")
            )
        finally:
            terminal.end()
        return results
