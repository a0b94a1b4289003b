"""A small disk that is really full: a file system in memory, mounted where only its own processes have it.

It needs no right but that of a user namespace (`unshare`). Where the system allows none, as in many containers, `fill` forbids
the same processes to write any file (RLIMIT_FSIZE), which the kernel answers with EFBIG in place of ENOSPC.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

_MOUNT = (
    'mount -t tmpfs -o size="$1",nr_inodes=2000,mode=700 finetui "$2" && echo mounted && exec sleep infinity'
)
_LIMITED = (
    "import os, resource, sys\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)


class Disk:
    """An empty disk of `size_bytes` at `path`, for the processes that `start` begins. This process sees it at `here`."""

    def __init__(self, path: Path, size_bytes: int = 160 * 1024**2) -> None:
        path.mkdir()
        self.path = self.here = path
        self.full = False
        self._started: list[subprocess.Popen[Any]] = []
        self._keeper: subprocess.Popen[str] | None = None
        with contextlib.suppress(FileNotFoundError):
            keeper = subprocess.Popen(
                ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNT, "sh", str(size_bytes), str(path)],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            assert keeper.stdout is not None
            with keeper.stdout:
                mounted = keeper.stdout.readline() == "mounted\n"
            if mounted:
                self._keeper = keeper
                self.here = Path(f"/proc/{keeper.pid}/root{path}")
            else:
                keeper.wait()

    @property
    def words(self) -> str:
        """What is said of it while it is full."""
        return "the disk is full" if self._keeper is not None else os.strerror(errno.EFBIG)

    def start(self, argv: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts `argv` where the disk is at `path`; `options` are those of Popen."""
        if self._keeper is not None:
            there = f"--chdir={options.pop('cwd', self.path)}"  # who enters is at the root
            enter = f"nsenter --target {self._keeper.pid} --user --mount --preserve-credentials env".split()
            argv = [*enter, there, *argv]
        elif self.full:
            argv = [sys.executable, "-c", _LIMITED, *argv]
        self._started.append(subprocess.Popen(argv, **options))
        return self._started[-1]

    def run(self, argv: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs `argv` there to its end."""
        process = self.start(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )  # fmt: skip
        said, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess(argv, process.returncode, said, errors)

    def fill(self, leaving_bytes: int = 0) -> None:
        """Leaves room for so many bytes, in whole pages, and no more."""
        self.full = True
        if self._keeper is None:
            self._limit(leaving_bytes)
            return
        with (self.here / ".ballast").open("wb") as ballast:
            room = os.statvfs(self.here)
            os.posix_fallocate(ballast.fileno(), 0, room.f_bavail * room.f_frsize - leaving_bytes)

    def empty(self) -> None:
        """There is room again."""
        self.full = False
        if self._keeper is None:
            self._limit(resource.RLIM_INFINITY)
            return
        (self.here / ".ballast").unlink(missing_ok=True)

    def close(self) -> None:
        for process in self._started:
            with contextlib.suppress(psutil.NoSuchProcess):
                for one in psutil.Process(process.pid).children(recursive=True):
                    one.kill()
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.wait()

    def _limit(self, size: int) -> None:
        for process in self._started:
            with contextlib.suppress(psutil.NoSuchProcess):
                for one in (p := psutil.Process(process.pid), *p.children(recursive=True)):
                    resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
