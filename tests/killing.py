"""A process that dies by SIGKILL at its n-th operation on files, for every n there is.

The work is done in a fork of this process, again and again: the first time it is killed right before its first open, write,
fsync, rename, …, the next time before its second, until it comes to its end. Calls made by Python code are counted one by
one, whatever the library; a library's own native writes are cut by `at_every_size`.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from finetui.core.errors import FinetuiError

OPERATIONS = frozenset(
    "open write writelines fsync flush close replace rename link symlink mkdir unlink remove rmdir truncate ftruncate "
    "sendfile copy_file_range utime chmod "
    "serialize_file save_pretrained write_record write_end_of_file PyTorchFileWriter".split()
)
MOST = 2000
REFUSED = 4
"""The exit code of a fork whose work was refused by the disk, and said so."""


def at_every_operation(work: Callable[[], object], look: Callable[[bool], object]) -> int:
    """Kills `work` at each of its operations; `look(done)` judges what each death has left. `done` is False but for the
    last time, when the work came to its end. Returns how many operations there were."""
    for deadly in range(1, MOST):
        code = _forked(lambda deadly=deadly: _counted(work, deadly))
        look(code == 0)
        if code == 0:
            return deadly - 1
        assert code == -signal.SIGKILL, f"the work ended with {code} by itself"
    raise AssertionError(f"more than {MOST} operations")


def at_every_size(work: Callable[[], object], look: Callable[[bool], object], sizes: Iterable[int]) -> int:
    """Kills `work` inside the write that makes any file longer than each of `sizes` in bytes, by the kernel's own hand
    (SIGXFSZ), or lets it see that the write came short. Returns how often it did not come to its end."""
    deaths = 0
    for size in sorted(set(sizes)):

        def limited(size: int = size) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
            work()

        code = _forked(limited)
        assert code in (0, REFUSED, -signal.SIGXFSZ), f"the work ended with {code} by itself"
        deaths += code != 0
        look(code == 0)
    return deaths


def refused(work: Callable[[], object]) -> bool:
    """Whether `work`, on a disk that takes no byte more (EFBIG at its first write), ends with words of its own."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        work()

    return _forked(limited) == REFUSED


def _counted(work: Callable[[], object], deadly: int) -> None:
    count = 0

    def profile(_frame: object, event: str, called: Any) -> None:
        nonlocal count
        if event != "c_call" or getattr(called, "__name__", "") not in OPERATIONS:
            return
        owner = type(getattr(called, "__self__", None))
        if owner in (str, bytes, io.StringIO, io.BytesIO):  # not on any disk
            return
        count += 1
        if count == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)


def _forked(work: Callable[[], None]) -> int:
    """The exit code of a fork that does `work`; negative where a signal ended it."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except (OSError, FinetuiError):
            code = REFUSED
        except BaseException:  # the process's edge
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
