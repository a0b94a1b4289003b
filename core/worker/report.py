"""How a download or an upload stands, written for `core.transfer` about four times a second, whole each time."""

from __future__ import annotations

import collections
import contextlib
import json
import time
from pathlib import Path

import psutil

from .. import atomic
from ..errors import FinetuiError
from ..secrets import redact

WRITE_SECONDS = 0.25
SPEED_SECONDS = 6.0
"""The speed is that of the last so many seconds."""


class Report:
    """The state file. Its fields are those of `transfer.TransferState`."""

    def __init__(self, folder: Path, repo: str, revision: str | None) -> None:
        process = psutil.Process()
        self._file = folder / f"{process.pid}.json"
        self._head = {
            "v": 1,
            "pid": process.pid,
            "create_time": process.create_time(),
            "repo": repo,
            "revision": revision,
        }
        self._seen: collections.deque[tuple[float, int]] = collections.deque()
        self._written = float("-inf")
        self._done = self._total = 0

    def progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._done, self._total = done, total
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > SPEED_SECONDS:
            self._seen.popleft()
        if now - self._written < WRITE_SECONDS:
            return
        self._written = now
        (then, before) = self._seen[0]
        speed = max(0, done - before) / (now - then) if now > then else 0.0
        eta = (total - done) / speed if speed > 0 else None
        self._write("running", bytes_per_second=speed, eta_seconds=eta)

    def end(self, state: str, error: FinetuiError | None = None) -> None:
        if state == "done":
            self._done = self._total
        card = None
        if error is not None:
            card = {
                "what": redact(error.what),
                "why": redact(error.why),
                "fix": redact(error.fix),
                "code": error.code,
            }
        self._write(state, error=card)

    def checking(self) -> None:
        self._write("checking")

    def _write(self, state: str, **more: object) -> None:
        body = {
            **self._head,
            "state": state,
            "done_bytes": self._done,
            "total_bytes": self._total,
            **more,
        }
        with contextlib.suppress(OSError):  # a full disk: the download's own failure is told by its end
            atomic.write_text(self._file, json.dumps(body))
