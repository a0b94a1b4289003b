"""Run folders: where a run's files stand, how a run is made, found, and named."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import paths
from ..errors import FinetuiError
from ..text import one_line


@dataclass(frozen=True)
class RunFolder:
    """One run's folder. It is the only truth about the run; every process shares only these files."""

    path: Path

    @property
    def id(self) -> str:
        """The folder's name, such as `20261124-220312-demo`."""
        return self.path.name

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def control(self) -> Path:
        return self.path / "control"

    @property
    def log(self) -> Path:
        return self.path / "worker.log"

    @property
    def last_words(self) -> Path:
        """What the worker itself says as it dies. No library prints there, and so no row of a dataset."""
        return self.path / "crash.log"

    @property
    def lock(self) -> Path:
        """Held by whoever changes the run, as long as that one lives."""
        return self.path / "worker.lock"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def start(self) -> Path:
        """The adapter as LoftQ began it; no other run has one."""
        return self.path / "start.safetensors"

    @property
    def model(self) -> Path:
        """The whole model of a full fine-tuning, which leaves no adapter."""
        return self.path / "model"

    @property
    def exports(self) -> Path:
        return self.path / "exports"

    @property
    def importance(self) -> Path:
        """Where the importance matrix stands, and is made in a folder `.making-…` that holds rows of the training data."""
        return self.path / "importance"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"


def create(name: str) -> RunFolder:
    """A new, empty run folder (0700) whose id starts with the time and ends with `name` made safe.

    Raises FinetuiError where the folder cannot be made (no space, no right).
    """
    slug = _slug(name)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    try:
        parent = paths.private_dir(paths.runs())
        for attempt in range(1, 1000):
            folder = parent / (f"{stamp}-{slug}" if attempt == 1 else f"{stamp}-{slug}-{attempt}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                for inner in ("control", "checkpoints", "exports"):
                    (folder / inner).mkdir(mode=0o700)
                return RunFolder(folder)
    except OSError as error:
        raise FinetuiError(
            "The run's folder cannot be made.",
            f"{paths.runs()}: {error.strerror or error}.",
            "Free some space, or set FINETUI_HOME to a folder that you can write to.",
            code="run-folder",
        ) from error
    raise FinetuiError(
        "The run's folder cannot be made.", "A thousand runs started in this second.", "Try again."
    )


@contextlib.contextmanager
def alone(run: RunFolder) -> Iterator[None]:
    """Holds the run as its worker does. Raises FinetuiError: run-busy where one does; OSError."""
    descriptor = os.open(run.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FinetuiError(
                f"{run.id} is at work.", "A worker holds the run.", "Stop it first.", code="run-busy"
            ) from None
        yield
    finally:
        os.close(descriptor)


def all_runs() -> list[RunFolder]:
    """Every run folder, newest first. A folder without a recipe is none of ours."""
    try:
        folders = [p for p in paths.runs().iterdir() if p.name[:1] != "." and _ours(p)]
    except OSError:
        return []
    return [RunFolder(p) for p in sorted(folders, key=lambda p: p.name, reverse=True)]


def _ours(folder: Path) -> bool:
    try:
        return (folder / "recipe.yaml").is_file()
    except OSError:
        return True  # nobody may look into it now, which its state tells


def find(text: str) -> RunFolder:
    """The run that `text` names: a path to a run folder, an id, the start or end of one, a name (that of its recipe: the
    newest run with it), the name that a person gave it, or `last`.

    Raises FinetuiError with the nearest ids where there is none or more than one.
    """
    from . import care

    with contextlib.suppress(OSError, RuntimeError, ValueError):  # too long, `~nobody`, NUL: no path, then
        path = Path(text).expanduser()
        if (path / "recipe.yaml").is_file():
            return RunFolder(path.absolute())
    runs = all_runs()
    if text == "last" and runs:
        return runs[0]
    exact = [r for r in runs if r.id == text]
    if exact:
        return exact[0]
    slug = _slug(text)
    named = [r for r in runs if text and slug in (r.id[16:], re.sub(r"-\d+$", "", r.id[16:]))][:1]
    titled = [r for r in runs if text and care.labels(r).title == text]
    given = list(dict.fromkeys([*titled, *named]))
    partial = given or ([r for r in runs if r.id.startswith(text) or r.id.endswith(text)] if text else [])
    if len(partial) == 1:
        return partial[0]
    some = ", ".join(r.id for r in (partial or runs)[: 10 if given else 3])
    shown = repr(one_line(text, 100))
    raise FinetuiError(
        f"There is no run called {shown}." if not partial else f"{shown} could be several runs.",
        f"Runs here: {some}." if some else "No run has been started yet.",
        "Name one by its id." if given else "finetui runs lists them all.",
        code="run-not-found",
    )
