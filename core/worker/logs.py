"""Where the libraries' own output goes: `worker.log`, with tokens taken out of what we write ourselves."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from .. import secrets


def redirect(log: Path) -> None:
    """Sends file descriptors 1 and 2 to `log` (appended, 0600) from here on."""
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


def write_traceback(error: BaseException) -> None:
    """The whole traceback, redacted, to the log. People see a card instead."""
    text = "".join(traceback.format_exception(error))
    print(secrets.redact(text), file=sys.stderr, flush=True)
