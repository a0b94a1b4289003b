"""An upload in a process of its own: `python -m finetui.core.worker.upload FOLDER`, which holds the plan.

It writes FOLDER/<pid>.json, about four times a second, whole each time. SIGTERM ends it at once. Large files are sent
one after another, ahead of the commit; huggingface_hub and the hub see to it that nothing is sent twice: parts of a file
where hf_xet is there, whole files otherwise.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import CommitOperationAdd

from .. import hub, hub_write
from ..errors import FinetuiError
from ..text import one_line
from ..upload import LOG, PLAN
from . import failures
from .report import Report

Count = Callable[[int], None]
"""Called with the bytes of the file under way that have been sent."""

_TICK_SECONDS = 0.2


class _Counted(io.FileIO):
    """A file whose reading is the progress of its upload."""

    def __init__(self, path: str, count: Count) -> None:
        super().__init__(path, "rb")
        self._count = count

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(-1 if size is None else size) or b""
        self._count(self.tell())
        return part


class _Addition(CommitOperationAdd):
    """A file of the commit that tells how much of it has been sent."""

    count: Count = staticmethod(lambda _sent: None)

    @contextmanager
    def as_file(self, with_tqdm: bool = False) -> Iterator[BinaryIO]:
        if with_tqdm and isinstance(self.path_or_fileobj, str):  # only the sending asks for a bar
            with _Counted(self.path_or_fileobj, self.count) as file:
                yield file  # type: ignore[misc]
        else:
            with super().as_file() as file:
                yield file


def main(arguments: Sequence[str]) -> int:
    [folder] = [Path(argument) for argument in arguments]
    plan = json.loads((folder / PLAN).read_bytes())
    repo = str(plan["repo"])
    report = Report(folder, repo, None)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    report.checking()
    sent = _Sent()
    outcome: list[BaseException | None] = []

    def work() -> None:
        try:
            send(plan, sent)
            outcome.append(None)
        except BaseException as error:  # the process's edge
            outcome.append(error)

    thread = threading.Thread(target=work, name="upload", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_TICK_SECONDS)
        if sent.total:
            report.progress(sent.done, sent.total)
        if ended.is_set() and thread.is_alive():
            report.end("cancelled")
            return 0
    error = outcome[0]
    if error is not None:
        report.end("failed", _card(error, repo, folder))
        return 1
    report.progress(sent.total, sent.total)
    report.end("done")
    return 0


class _Sent:
    """Bytes sent so far and in all, written by the sending thread."""

    def __init__(self) -> None:
        self.total = self.done = 0


def send(plan: dict[str, Any], sent: _Sent) -> None:
    """Makes the repository where it is missing, sends the files, commits them, and checks what arrived.

    Raises FinetuiError (upload-gone, upload-differs) and what huggingface_hub raises.
    """
    repo = str(plan["repo"])
    additions = [_addition(file) for file in plan["files"]]
    sent.total = sum(addition.upload_info.size for addition in additions)
    api = hub_write.api()
    api.create_repo(repo, private=bool(plan["private"]), exist_ok=True)
    with _bytes_of_xet() as follow:
        before = 0
        for addition in additions:
            size = addition.upload_info.size

            def count(part: int, before: int = before, size: int = size) -> None:
                sent.done = before + min(part, size)

            addition.count = count
            follow(count)
            api.preupload_lfs_files(repo, [addition], free_memory=False)
            before += size
            count(size)
    api.create_commit(
        repo, additions, commit_message=f"Upload {', '.join(plan['formats'])} with finetui", revision="main"
    )
    _check(api, repo, additions)


def _addition(file: dict[str, Any]) -> _Addition:
    content, source = file["content"], file["source"]
    if content is not None:
        return _Addition(str(file["name"]), str(content).encode("utf-8"))
    try:
        return _Addition(str(file["name"]), str(source))
    except ValueError as error:
        raise FinetuiError(
            f"{one_line(str(file['name']), 100)} is not there any more.",
            "The export was removed or made anew since the upload was planned.",
            "Give the command again.",
            code="upload-gone",
        ) from error


def _check(api: Any, repo: str, additions: list[_Addition]) -> None:
    """Compares size and SHA-256 of what the hub has with what was sent."""
    info = api.model_info(repo, files_metadata=True, timeout=60)
    there = {s.rfilename: s for s in info.siblings or ()}
    for addition in additions:
        found = there.get(addition.path_in_repo)
        sha = getattr(found.lfs, "sha256", None) if found is not None and found.lfs else None
        size = found.size if found is not None else None
        wrong = size not in (None, addition.upload_info.size) or (
            sha is not None and sha != addition.upload_info.sha256.hex()
        )
        if found is None or wrong:
            raise FinetuiError(
                f"{one_line(addition.path_in_repo, 100)} did not arrive as it was sent.",
                "The hub names another size or SHA-256 for it, or does not list it.",
                "Give the same command again.",
                code="upload-differs",
            )


@contextmanager
def _bytes_of_xet() -> Iterator[Callable[[Count], None]]:
    """Lets hf_xet's own progress be counted: huggingface_hub draws it in bars, which nobody would see here.

    Where a later huggingface_hub has no such place, progress comes file by file.
    """
    current: list[Count] = [lambda _sent: None]

    class Reporter:
        def __init__(self, *_arguments: object, **_more: object) -> None: ...

        def update_progress(self, group: Any, _items: object) -> None:
            current[0](int(group.total_bytes_completed))

        def close(self) -> None: ...

    def follow(count: Count) -> None:
        current[0] = count

    from huggingface_hub.utils import enable_progress_bars

    place = None
    with contextlib.suppress(ImportError):
        from huggingface_hub.utils import _xet_progress_reporting as place
    before = getattr(place, "XetUploadProgressReporter", None)
    if place is None or before is None:
        yield follow
        return
    place.XetUploadProgressReporter = Reporter  # type: ignore[misc]
    enable_progress_bars()  # without them it is not asked for
    try:
        yield follow
    finally:
        place.XetUploadProgressReporter = before
        hub.quiet()


def _card(error: BaseException, repo: str, folder: Path) -> FinetuiError:
    if isinstance(error, FinetuiError):
        return error
    if failures.is_of_this_machine(error) or (isinstance(error, OSError) and error.filename is not None):
        return failures.card(error, folder / LOG)
    return hub_write.card(error, repo)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
