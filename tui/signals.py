"""SIGTERM, SIGHUP and SIGINT: the terminal is given back before the process goes. Runs are not touched."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app import FinetuiApp

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
"""The last one comes from outside only: Ctrl+C is a key while the terminal is raw. asyncio would cancel the task at work, which may
be one that catches it."""
GIVE_UP_SECONDS = 3.0
RESTORE = b"\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[<u\x1b[?1049l\x1b[?25h"
"""Mouse and paste modes off, the usual screen back, the cursor shown."""


def listen_early() -> None:
    """Until the application listens by itself, a signal that ends it gives the terminal back too."""
    modes: list[Any] | None = None
    with contextlib.suppress(OSError, termios.error):
        modes = termios.tcgetattr(0)

    def leave(number: int, _frame: object) -> None:
        with contextlib.suppress(OSError, termios.error):
            os.write(2, RESTORE)
            if modes is not None:
                termios.tcsetattr(0, termios.TCSANOW, modes)
        os._exit(128 + number)

    for number in ENDING:
        signal.signal(number, leave)


def listen(app: FinetuiApp) -> None:
    """A signal that ends `app` lets it leave as it does by itself; called on its event loop."""
    if app.is_headless:
        return
    loop = asyncio.get_running_loop()
    for number in ENDING:
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(number, _leave, app, number)


def _leave(app: FinetuiApp, number: int) -> None:
    code = 128 + number

    def give_up() -> None:
        # A terminal that hung up may block the ordinary way out.
        with contextlib.suppress(OSError):
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, RESTORE)
        app.inspecting.close()
        app.warming.close()
        os._exit(code)

    timer = threading.Timer(GIVE_UP_SECONDS, give_up)
    timer.daemon = True
    timer.start()
    app.exit(code, return_code=code)
