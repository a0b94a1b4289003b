"""Standard output of a child process as JSON lines."""

from __future__ import annotations

import json
import os
import threading
from typing import IO, Any

from ..errors import FinetuiError


class Outlet:
    """Writes JSON lines, from any thread. Ends the process when nobody reads them any more."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._lock = threading.Lock()

    def say(self, kind: str, **values: Any) -> None:
        line = json.dumps({"kind": kind, **values}).encode() + b"\n"
        with self._lock:
            try:
                self._file.write(line)
                self._file.flush()
            except (BrokenPipeError, ValueError):
                os._exit(0)  # whoever asked has gone

    def error(self, error: FinetuiError, **values: Any) -> None:
        self.say("error", error=card(error), **values)


def card(error: FinetuiError) -> dict[str, str]:
    return {"what": error.what, "why": error.why, "fix": error.fix, "code": error.code}
