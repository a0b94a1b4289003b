"""The memory that a worker and its children hold, sampled while they work, each child by what it does."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_SECONDS = 0.1
_ROLES = {
    "convert_hf_to_gguf.py": "converter",
    "convert_lora_to_gguf.py": "adapter converter",
    "llama_child.py": "quantizer",
    "llama-quantize": "quantizer",
    "finetui.core.worker": "worker",
}
_CONSUMERS = {"merged": "Transformers", "adapter": "PEFT", "gguf": "llama.cpp"}


@dataclass
class Held:
    """Bytes. `peak` is the kernel's own high-water mark, `own` the most that was the process's alone (its heap), `mapped` the
    most that were pages of files: the kernel can drop those and read them again."""

    peak: int = 0
    own: int = 0
    mapped: int = 0
    _seen: int = 0

    @property
    def missed(self) -> int:
        """By how much the highest sample lies under the kernel's mark."""
        return max(0, self.peak - self._seen)

    def take(self, status: dict[str, int]) -> None:
        own, mapped = status.get("RssAnon", 0), status.get("RssFile", 0) + status.get("RssShmem", 0)
        self.peak = max(self.peak, status.get("VmHWM", 0))
        self.own, self.mapped = max(self.own, own), max(self.mapped, mapped)
        self._seen = max(self._seen, own + mapped)


@dataclass
class Watched:
    """What was seen: by role, and at once in all of them (a page that several share counts once). Of `together`, `own` is what
    was no page of a file."""

    roles: dict[str, Held] = field(default_factory=dict)
    together: int = 0
    own: int = 0

    @property
    def missed(self) -> int:
        """What may have been held between two samples."""
        return max((held.missed for held in self.roles.values()), default=0)


def _role(process: psutil.Process) -> str:
    words = process.cmdline()
    for index, word in enumerate(words):
        if word == "finetui.core.worker.consumer":
            return _CONSUMERS[words[index + 1]]
        if (name := word.rpartition("/")[2]) in _ROLES:
            return "importance matrix" if "matrix" in words else _ROLES[name]
    return "others"


def _numbers(process: psutil.Process, file: str) -> dict[str, int]:
    """The lines `NAME: NUMBER kB` of a file of the process, in bytes; nothing where it has ended."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/{file}").read_text().splitlines():
            name, _, rest = line.partition(":")
            if rest.endswith(" kB"):
                found[name] = int(rest.removesuffix(" kB")) * 1024
    return found


def _sample(root: psutil.Process, watched: Watched) -> None:
    together = own = 0
    with contextlib.suppress(psutil.Error):
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                held = watched.roles.setdefault(_role(process), Held())
                held.take(_numbers(process, "status"))
                shares = _numbers(process, "smaps_rollup")
                together += shares.get("Pss", 0)
                own += shares.get("Pss", 0) - shares.get("Pss_File", 0)
    watched.together, watched.own = max(watched.together, together), max(watched.own, own)


@contextlib.contextmanager
def watching(pid: int) -> Iterator[Watched]:
    """Samples the process `pid` and all below it until the block ends. Linux only."""
    watched, ended, root = Watched(), threading.Event(), psutil.Process(pid)

    def look() -> None:
        while not ended.is_set():
            began = time.monotonic()
            _sample(root, watched)
            ended.wait(max(_SECONDS, time.monotonic() - began))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        ended.set()
        thread.join()
