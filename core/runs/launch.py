"""Starts workers: a process in a session of its own, fed by a run folder, that outlives whoever started it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .. import paths
from ..errors import FinetuiError
from . import control, manifest, sources, state
from .store import RunFolder, create

if TYPE_CHECKING:
    from ..recipe import Recipe
    from .warm import Warm

Job = Literal["train", "resume", "export", "verify"]

MIN_FREE_BYTES = 1024**3
"""No training starts with less disk than this: an adapter, a few checkpoints and the log of a small model."""

WORKER_MODULE = "finetui.core.worker"


def worker_environment() -> dict[str, str]:
    """The whole environment of a worker: this process's, without statistics, surprise installs and relative paths.

    A hub token stays where it is, in the environment, and goes nowhere else.
    """
    environment = dict(os.environ)
    for name in ("FINETUI_HOME", "HF_HOME", "HF_TOKEN_PATH", "HF_HUB_CACHE", "UNSLOTH_LLAMA_CPP_PATH"):
        if environment.get(name):  # the worker stands in another folder
            environment[name] = str(Path(environment[name]).expanduser().absolute())
    environment.update(
        UNSLOTH_DISABLE_STATISTICS="1",
        UNSLOTH_AUTO_INSTALL="0",
        UNSLOTH_COMPILE_LOCATION=str(paths.cache() / "unsloth_compiled"),
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
        DO_NOT_TRACK="1",
        WANDB_MODE="disabled",
        TOKENIZERS_PARALLELISM="true",
        PYTHONUNBUFFERED="1",
        PYTHONFAULTHANDLER="1",
        PYTHONUTF8="1",
        CUDA_DEVICE_ORDER="PCI_BUS_ID",  # GPUs are numbered as the driver lists them
    )
    environment.setdefault(
        "GOMP_SPINCOUNT", "20000"
    )  # threads that spin long stall each other on a busy machine
    return environment


def command(*arguments: str) -> list[str]:
    """The argv of a worker. `-P` keeps the folder that it stands in off the import path."""
    return [sys.executable, "-P", "-m", WORKER_MODULE, *arguments]


def spawn(arguments: Sequence[str], log: Path, folder: Path) -> subprocess.Popen[bytes]:
    """A worker process in a session of its own, standing in `folder`, its output appended to `log` (0600).

    A thread waits for it, so that it never stays a zombie of this process. Raises OSError.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd=folder,
            env=worker_environment(),
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    threading.Thread(target=process.wait, name=f"reap-{process.pid}", daemon=True).start()
    return process


def create_time(pid: int) -> float:
    """When process `pid` was made, in seconds since the epoch; now, where it has gone already."""
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return time.time()


def check_disk(folder: Path, needed_bytes: int = MIN_FREE_BYTES) -> None:
    """Raises FinetuiError: disk-full where the file system of `folder` has less than `needed_bytes` left, run-folder
    where nothing can be written there."""
    from ..text import bytes_words

    existing = next((p for p in (folder, *folder.parents) if p.exists()), Path("/"))
    try:
        usage = shutil.disk_usage(existing)
    except OSError:
        return
    if not usage.total or not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise FinetuiError(
            "finetui cannot write where its runs go.",
            f"{existing} is {'no folder' if not existing.is_dir() else 'not open to writing'}.",
            "Set FINETUI_HOME to a folder that you can write to.",
            code="run-folder",
        )
    free = usage.free
    if free < needed_bytes:
        raise FinetuiError(
            "There is too little space on the disk.",
            f"{existing} has {bytes_words(free)} left; this needs at least {bytes_words(needed_bytes)}.",
            "Free some space, or set FINETUI_HOME to a folder on a larger disk.",
            code="disk-full",
        )


def resolved(recipe: Recipe, *bases: Path) -> Recipe:
    """`recipe` with its relative paths made absolute: each is looked for under the `bases` in order, then here.

    A source that is no path here (`demo`, a hub id, a file that does not exist) stays as it is, unless it can only be
    a path (`./x`, `~/x`, `x.jsonl`), which is then made absolute against the first base.
    """
    places = (*bases, Path.cwd())

    def absolute(source: str | None) -> str | None:
        if not source or source == "demo":
            return source
        path = Path(source)
        try:
            path = path.expanduser()
            if path.is_absolute():
                return str(path)
            for place in places:
                if (place / path).exists():
                    return str(Path(os.path.abspath(place / path)))
        except (OSError, RuntimeError, ValueError):  # too long, `~nobody`, NUL: no path of this machine
            return source
        looks_local = source.startswith((".", "~")) or path.suffix.lower() in (
            ".jsonl",
            ".json",
            ".csv",
            ".parquet",
        )
        return str(Path(os.path.abspath(places[0] / path))) if looks_local else source

    model = recipe.model.model_copy(
        update={
            "source": absolute(recipe.model.source),
            "adapter": absolute(recipe.model.adapter),
        }
    )
    dataset = recipe.dataset.model_copy(
        update={
            "source": absolute(recipe.dataset.source),
            "evaluation_source": absolute(recipe.dataset.evaluation_source),
        }
    )
    return recipe.model_copy(update={"model": model, "dataset": dataset})


def new(recipe: Recipe, *bases: Path, warm: Warm | None = None, queued: bool = False) -> RunFolder:
    """Makes a run of `recipe` and starts its training, or puts it at the end of the queue. Relative paths are looked for
    under `bases`, then here.

    Raises FinetuiError: disk-full, run-folder, worker-start, and those of `model_adapter.check_adapter`.
    """
    from .. import model_adapter, recipe_file

    recipe = resolved(recipe, *bases)
    model_adapter.check_adapter(recipe)
    check_disk(paths.runs())
    run = create(recipe.name)
    try:
        recipe_file.save(recipe, run.recipe)
        if queued:
            from . import turns

            turns.join(run)
        else:
            start(run, "train", warm=warm)
    except BaseException as error:
        if not run.events.exists() and not run.manifest.exists():
            shutil.rmtree(run.path, ignore_errors=True)
        if isinstance(error, OSError):
            raise FinetuiError(
                "The run cannot be written.",
                f"{run.path}: {error.strerror or error}.",
                "Free some space, or set FINETUI_HOME to a folder that you can write to.",
                code="run-folder",
            ) from error
        raise
    return run


def start(
    run: RunFolder,
    job: Job,
    formats: Sequence[str] = (),
    warm: Warm | None = None,
    *,
    anyway: bool = False,
    options: Sequence[str] = (),
) -> None:
    """Starts a worker on `run`: the warm one if it lives, else a cold one. Returns at once. `anyway`: the person agreed to
    resume although something has changed since. `options` are those of an export (`export_options`).

    Raises FinetuiError: run-busy where a worker is at work on it, disk-full, worker-start.
    """
    now = state.status(run)
    if now.live and now.pid is not None:
        raise busy(run, now)
    if job not in ("export", "verify"):
        check_disk(run.path)
    control.clear(run)
    before, worker = manifest.read(run), None
    launched = time.time()
    try:
        if warm is not None and warm.alive:
            worker, how = warm.process, "warm"
        else:
            warm = None
            words = [job, str(run.path.absolute()), *options, *formats]
            worker, how = spawn(words, run.log, run.path), "cold"
        sign(run, job, worker.pid, launched, how, before, formats=formats, anyway=anyway)
        if warm is not None:
            warm.give(run, job, (*options, *formats))
    except OSError as error:
        if worker is not None:
            take_back(run, worker, before)
        raise not_started(error) from error


def take_back(run: RunFolder, worker: subprocess.Popen[bytes], before: manifest.Manifest | None) -> None:
    """Ends a worker that was started on `run` and could not be told of it, and puts back the manifest of `before`."""
    worker.kill()
    with contextlib.suppress(OSError):
        run.manifest.unlink() if before is None else manifest.write(run, before)


def export_options(checkpoint: str | None, replace: bool, importance: bool | None = None) -> tuple[str, ...]:
    """What an export's worker is told besides the formats: whose weights, whether older exports go, and whether the
    quantizations get an importance matrix where the recipe says otherwise."""
    options = [f"--checkpoint={checkpoint}"] if checkpoint else []
    if importance is not None:
        options.append("--importance" if importance else "--no-importance")
    return (*options, "--replace") if replace else tuple(options)


def sign(
    run: RunFolder,
    job: str,
    pid: int,
    launched_ts: float,
    how: str,
    before: manifest.Manifest | None,
    *,
    formats: Sequence[str] = (),
    anyway: bool = False,
) -> None:
    """Writes the manifest of a worker that was started on `run` after the one of `before`. Raises OSError."""
    versions = manifest.versions()
    trains = job in ("train", "resume")
    manifest.write(
        run,
        manifest.Manifest(
            job=job,
            pid=pid,
            create_time=create_time(pid),
            host=manifest.this_host(),
            launched_ts=launched_ts,
            how=how,
            formats=tuple(formats),
            versions=versions,
            starts=(before.starts if before else 0) + 1,
            trained_with=versions if trains or before is None else before.trained_with,
            sources=before.sources if before and before.sources and not anyway else _prints(run),
            anyway=anyway,
        ),
    )


def _prints(run: RunFolder) -> dict[str, str]:
    from .. import recipe_file

    try:
        return sources.prints(recipe_file.load(run.recipe))
    except FinetuiError:
        return {}


def busy(run: RunFolder, now: state.RunStatus) -> FinetuiError:
    """The card for a run that has a worker already."""
    if now.state == "queued":
        return FinetuiError(
            f"{run.id} waits in the queue already.",
            f"Its place is {now.queue_place}.",
            "finetui queue shows and changes the order.",
            code="run-busy",
        )
    return FinetuiError(
        f"{run.id} already has a worker.",
        f"It is at its {now.job or 'first'} job" + (f" on {now.host}." if now.elsewhere else "."),
        f"finetui attach {run.id} follows it.",
        code="run-busy",
    )


def not_started(error: OSError) -> FinetuiError:
    """The card for a worker that the system did not start."""
    return FinetuiError(
        "The worker cannot be started.",
        f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "") + ".",
        "finetui doctor looks for the cause.",
        code="worker-start",
    )


def changed_since(run: RunFolder) -> list[str]:
    """What a resume of `run` would meet that is not as it was when it trained: files, and versions of libraries."""
    told = manifest.read(run)
    if told is None:
        return []
    found = sources.changes(told.sources, _prints(run)) if told.sources else []
    now = manifest.versions()
    for name, version in told.trained_with.items():
        if name != "finetui" and now.get(name) != version:
            found.append(f"{name} was {version} and is {now.get(name, 'not installed')}")
    return found


def check_resumable(run: RunFolder, *, anyway: bool = False) -> None:
    """Raises FinetuiError: nothing-to-resume where the run is trained to its end or has no checkpoint, changed-since where
    its data, its model or the libraries are not what they were (unless `anyway`)."""
    now = state.status(run)
    if now.trained:
        raise FinetuiError(
            f"{run.id} is trained to its end.",
            "There is nothing left to resume.",
            f"finetui export {run.id} --format gguf_q8_0 exports it.",
            code="nothing-to-resume",
        )
    found = False
    with contextlib.suppress(OSError):
        found = any(p.is_dir() and not p.name.startswith(".") for p in run.checkpoints.iterdir())
    if not now.live and not found:
        raise FinetuiError(
            f"{run.id} cannot be resumed.",
            "It ended before its first checkpoint was saved.",
            f"finetui train {run.recipe} starts it again from the beginning.",
            code="nothing-to-resume",
        )
    changed = [] if anyway or now.live else changed_since(run)
    if changed:
        raise FinetuiError(
            f"Not everything is as it was when {run.id} trained.",
            "; ".join(changed[:5]) + (f"; and {len(changed) - 5} more." if len(changed) > 5 else "."),
            f"Put it back, or go on all the same: finetui resume {run.id} --anyway",
            code="changed-since",
        )
