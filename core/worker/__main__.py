"""The worker's command line: `python -m finetui.core.worker train|resume|probe RUN`, `export|verify RUN FORMAT…`, `warm FOLDER`,
`queued train|resume RUN`.

Exit code 0 for completed or stopped, 1 for failed, 2 for a wrong command line or a run that another worker holds.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from ..errors import FinetuiError
from ..runs import chosen, notice, queue, turns
from ..runs.events import Ended, Started, Warned
from ..runs.store import RunFolder
from . import failures, logs, waiting, warm
from .control import Control, Stopped
from .events import EventWriter
from .jobs import Job

USAGE = "usage: python -m finetui.core.worker train RUN | resume RUN | probe RUN | export RUN FORMAT [FORMAT…] | verify RUN [FORMAT…] | warm FOLDER | queued train|resume RUN"


def _lock(run: RunFolder) -> int | None:
    """The run's lock, held as long as this process lives; None where another worker holds it."""
    descriptor = os.open(run.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def work(name: str, run: RunFolder, formats: Sequence[str], asked_at: float, queued: bool = False) -> int:
    """Does one job on `run`, when its turn has come if it is `queued`, and reports its end exactly once.

    Returns the exit code.
    """
    if _lock(run) is None:
        print(f"finetui: another worker is at work on {run.id}; this one ends.", file=sys.stderr, flush=True)
        return 2
    logs.keep_last_words(run.last_words)
    chosen.settle(run, held=True)

    def warned(event: Warned) -> None:
        if event.code in notice.NEEDS_YOU:
            _notify(run, job, name, "trouble", f"{event.what} {event.fix}")

    writer = EventWriter(run.events, warned)
    control = Control(run.control)
    if not queued:  # what is asked of one that waits counts
        control.clear(before=asked_at)
    control.listen()
    job = Job(run, writer, control)
    began = time.monotonic()
    failed: FinetuiError | None = None
    stopped = False
    try:
        if queued:
            waiting.wait(run, name, control)
            began = time.monotonic()
        else:
            queue.use(queue.devices()[0])
        title = ""
        try:
            title = job.read_recipe().name
        finally:
            process = psutil.Process()
            writer.emit(Started(name, process.pid, process.create_time(), socket.gethostname(), title))
        if name == "export":
            job.export(*_export_words(formats))
        elif name == "verify":
            job.verify(formats)
        elif name == "probe":
            job.probe()
        else:
            job.train(resume=name == "resume")
    except Stopped:
        stopped = True
        control.take()  # who only looked has left the request there
    except BaseException as error:  # the process's edge: whatever it was, the run's end is told
        failed = failures.card(error, run.log, job.recipe)
        logs.write_traceback(error)
    seconds = time.monotonic() - began
    state = "failed" if failed else "stopped" if stopped else "completed"
    me = psutil.Process()
    mine = notice.claim(run, me.pid, me.create_time())
    if failed is None:
        writer.emit(Ended(name, state, seconds))
    else:
        writer.emit(Ended(name, "failed", seconds, failed.what, failed.why, failed.fix, failed.code))
    writer.close()
    turns.tend()  # those that wait for this one's end are alive to see it
    if mine:
        _notify(run, job, name, state, failed.what if failed else "")
    return 1 if failed else 0


def _notify(run: RunFolder, job: Job, name: str, state: str, what: str) -> None:
    """Runs the person's own command, where there is one."""
    title = job.recipe.name if job.recipe else ""
    wrong = notice.tell(run, name=title, job=name, state=state, what=what)
    if wrong:
        print(f"finetui: {wrong}", file=sys.stderr, flush=True)


def _export_words(words: Sequence[str]) -> tuple[tuple[str, ...], str | None, bool, bool | None]:
    """Formats, checkpoint, whether exports that are there are replaced, and whether there is an importance matrix, as
    `launch.export_options` writes them."""
    formats = tuple(word for word in words if not word.startswith("--"))
    checkpoint = next((word.partition("=")[2] for word in words if word.startswith("--checkpoint=")), None)
    importance = "--importance" in words or (False if "--no-importance" in words else None)
    return formats, checkpoint, "--replace" in words, importance


def main(arguments: Sequence[str]) -> int:
    asked_at = psutil.Process().create_time()  # a request made while this process was starting counts
    match arguments:
        case ["warm", folder]:
            order = warm.wait(Path(folder))
            if order is None:
                return 0
            run = RunFolder(order.run)
            logs.redirect(run.log)
            os.chdir(run.path)
            return work(order.job, run, order.formats, order.asked_at)
        case [("train" | "resume" | "probe") as name, folder]:
            return work(name, RunFolder(Path(folder).absolute()), (), asked_at)
        case [("export" | "verify") as name, folder, *formats]:
            return work(name, RunFolder(Path(folder).absolute()), formats, asked_at)
        case ["queued", ("train" | "resume") as name, folder]:
            return work(name, RunFolder(Path(folder).absolute()), (), asked_at, queued=True)
        case _:
            print(USAGE, file=sys.stderr)
            return 2


if __name__ == "__main__":
    # No terminal is its own, and where a login ends the system may send this right after the TERM that it saves at.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    logs.forgive()
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # no library's exit handler may keep a finished worker alive
