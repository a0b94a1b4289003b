"""The real thing in a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path

from tests.tui.driving import PATIENCE_SECONDS

DEMO = "from finetui.tui.app import run; raise SystemExit(run(demo=True))"


class Terminal:
    """The wizard in a pseudo-terminal of its own."""

    def __init__(
        self,
        home: Path,
        code: str = DEMO,
        size: tuple[int, int] = (80, 24),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`code` is what Python runs; `environment` is put over this process's."""
        self.master, slave = pty.openpty()
        self.resize(*size)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={
                **os.environ,
                "FINETUI_HOME": str(home),
                "FINETUI_NO_WARM": "1",
                "TERM": "xterm-256color",
                **(environment or {}),
            },
            start_new_session=True,
        )
        os.close(slave)
        self.output = b""

    def resize(self, width: int, height: int) -> None:
        """The size that the terminal has from now on; whoever reads it has to be told by SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def read_until(self, wanted: bytes) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while wanted not in self.output:
            assert time.monotonic() < deadline, f"waited in vain for {wanted!r}: {self.output[-2000:]!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.output += os.read(self.master, 65536)
                except OSError:
                    break

    def drain(self, seconds: float) -> None:
        """Reads what comes for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], left)[0]:
                self.output += os.read(self.master, 65536)

    def end(self) -> int:
        """Reads what is left and gives the exit code."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    self.output += os.read(self.master, 65536)
                except OSError:
                    break
        return self.process.wait(PATIENCE_SECONDS)
