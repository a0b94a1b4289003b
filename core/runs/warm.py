"""A worker that imports its libraries before there is a job, so that training starts at once."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import atomic, paths
from . import launch
from .store import RunFolder

STALE_SECONDS = 24 * 3600


@dataclass
class Warm:
    """One warm worker. It ends by itself when this process goes or its folder vanishes, unless it was given a job."""

    folder: Path
    process: subprocess.Popen[bytes]
    given: bool = False

    @classmethod
    def start(cls) -> Warm:
        """Starts one and returns at once. Raises OSError."""
        parent = paths.private_dir(paths.cache() / "warm")
        _sweep(parent)
        folder = parent / f"{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        try:
            return cls(folder, launch.spawn(["warm", str(folder)], folder / "log", folder))
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it lives and is still free for a job."""
        return not self.given and self.process.poll() is None and self.folder.is_dir()

    @property
    def ready(self) -> bool:
        """Whether its imports are done."""
        return self.alive and (self.folder / "ready").exists()

    def give(self, run: RunFolder, job: str, formats: Sequence[str] = ()) -> None:
        """Hands it the job; it takes it as soon as its imports are done. Raises OSError."""
        order = {"job": job, "run": str(run.path.absolute()), "formats": list(formats)}
        atomic.write_text(self.folder / "go", json.dumps(order))
        self.given = True

    def close(self) -> None:
        """Ends it, unless it was given a job: then it is no longer ours. May be called twice."""
        if self.given:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()


def _sweep(parent: Path) -> None:
    """Removes folders that warm workers left behind long ago."""
    with contextlib.suppress(OSError):
        for folder in parent.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > STALE_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
