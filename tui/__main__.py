"""The command `finetui`."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .commands.exits import INTERRUPTED

REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""What a disk says that takes nothing, wherever it was written to."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code (`commands.exits`). Never raises, never shows a traceback."""
    try:
        return _main(arguments)
    except KeyboardInterrupt:  # while it was still being imported
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED


def _main(arguments: Sequence[str] | None) -> int:
    from ..core.errors import FinetuiError
    from .commands import exits, output

    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    if "--ascii" in given:  # wherever it stands
        output.ascii_only = True
        given = [word for word in given if word != "--ascii"]
    output.prepare()
    try:
        try:
            from .commands.root import app

            code = app(given, prog_name="finetui", standalone_mode=True)
            return code if isinstance(code, int) else exits.OK
        except SystemExit as ended:
            return (
                ended.code
                if isinstance(ended.code, int)
                else exits.OK
                if ended.code is None
                else exits.FAILED
            )
        except FinetuiError as error:
            output.card(error, as_json)
            return exits.of_error(error.code)
    except BrokenPipeError:  # the reader has gone, as `head` does; a run that was followed goes on
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.OK
    except Exception as fault:
        if isinstance(fault, OSError) and fault.errno in REFUSALS:
            from ..core import paths

            output.card(
                FinetuiError(
                    "The disk did not take it.",
                    f"{fault.filename or paths.data()}: {fault.strerror}.",
                    "Free some space, or set FINETUI_HOME to a folder that you can write to.",
                    code="disk",
                ),
                as_json,
            )
            return exits.REFUSED
        output.card(
            FinetuiError(
                "finetui stopped over a fault of its own.",
                f"{type(fault).__name__}: {fault}"[:300],
                f"The whole of it is in {_log_fault()}. Runs are not touched by this.",
                code="internal",
            ),
            as_json,
        )
        return exits.INTERNAL


def _log_fault() -> Path | str:
    """Appends the traceback to finetui's own log (0600), tokens hidden. Returns the file."""
    import time
    import traceback

    from ..core import paths, secrets

    try:
        log = paths.private_dir(paths.data()) / "finetui.log"
        with os.fdopen(
            os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", errors="replace"
        ) as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}\n{secrets.redact(traceback.format_exc())}\n")
        return log
    except OSError:
        return "no log: it could not be written"


if __name__ == "__main__":
    sys.exit(main())
