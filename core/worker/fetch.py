"""A download in a process of its own: `python -m finetui.core.worker.fetch FOLDER REPO REVISION CODE PARENT CREATED`.

It writes FOLDER/<pid>.json, about four times a second, whole each time, and ends with the wizard that started it; what it
fetched stays. SIGTERM ends it at once. REVISION is `-` for the newest, CODE `code` to bring Python files along.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from . import download, failures
from .control import Stopped
from .report import Report

LOG = "fetch.log"


def main(arguments: Sequence[str]) -> int:
    folder, repo, revision, code, parent, created = arguments
    report = Report(Path(folder), repo, None if revision == "-" else revision)
    ended = False

    def end(_number: int, _frame: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)

    def check() -> None:
        if ended or not _lives(int(parent), float(created)):
            raise Stopped

    report.checking()
    try:
        download.fetch(
            repo, None if revision == "-" else revision, report.progress, check, code=code == "code"
        )
    except Stopped:
        report.end("cancelled")
        return 0
    except BaseException as error:  # the process's edge
        report.end("failed", failures.card(error, Path(folder) / LOG))
        return 1
    report.end("done")
    return 0


def _lives(pid: int, created: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - created) < 1.0
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
