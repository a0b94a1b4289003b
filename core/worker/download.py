"""A hub model brought into the hub's own cache, with progress in bytes. Resumable: what is there stays."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from .. import hub
from ..errors import FinetuiError
from . import failures
from .control import Stopped
from .events import EventWriter

WANTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "LICENSE*")
UNWANTED = ("consolidated*", "original/*", "onnx/*", "*/*.safetensors", "*.gguf")


def _size(folder: Path) -> int:
    total = 0
    for parent, _folders, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def fetch(repo: str, revision: str | None, writer: EventWriter) -> Path:
    """The snapshot folder of `repo` at `revision`: safetensors, settings and tokenizer, no code and no pickles.

    Raises FinetuiError (hub-offline and the others of `hub.card`), and OSError where the disk is full.
    """
    try:
        return _fetch(repo, revision, writer)
    except (FinetuiError, Stopped):
        raise
    except Exception as error:  # the edge of huggingface_hub
        if failures.is_of_this_machine(error):
            raise
        raise hub.card(error, repo, "model") from error


def _fetch(repo: str, revision: str | None, writer: EventWriter) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import filter_repo_objects

    def snapshot(local: bool) -> Path:
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=list(WANTED),
                ignore_patterns=list(UNWANTED),
                local_files_only=local,
            )
        ).absolute()

    if hub.is_offline():
        return snapshot(local=True)
    try:
        facts = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=20)
    except Exception:  # whatever kept the hub away, a copy that is already here is enough
        with contextlib.suppress(LocalEntryNotFoundError):
            return snapshot(local=True)
        raise
    names = set(
        filter_repo_objects(
            [s.rfilename for s in facts.siblings or ()],
            allow_patterns=list(WANTED),
            ignore_patterns=list(UNWANTED),
        )
    )
    total = sum(s.size or 0 for s in facts.siblings or () if s.rfilename in names)
    folder = Path(HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "blobs"
    done = threading.Event()
    writer.progress("download", 0, total, "bytes", repo)

    def watch() -> None:
        while not done.wait(0.5):
            writer.progress("download", min(_size(folder), total), total, "bytes", repo)

    watcher = threading.Thread(target=watch, name="download", daemon=True)
    watcher.start()
    try:
        found = snapshot(local=False)
        writer.progress("download", total, total, "bytes", repo)
        return found
    finally:
        done.set()
        watcher.join(timeout=5)
