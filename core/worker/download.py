"""A hub model brought into the hub's own cache, with progress in bytes that are on the disk.

huggingface_hub begins a file again when it was cut; so the large ones are fetched here, and go on where they stopped.
What is large is what the hub stores by its SHA-256, which is then checked. The rest, and the links between the cache's
parts, are left to huggingface_hub. One process at a time fetches a repository; the others wait and find it there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import hub, hub_http
from ..errors import FinetuiError
from ..model_files import CODE, UNWANTED, WANTED, check_names
from ..secrets import hub_token
from ..text import bytes_words, one_line
from . import failures
from .child import Check, go_on
from .control import Stopped

SPARE_BYTES = 256 * 1024**2
"""Left free on the disk beside what is downloaded."""

PARTIAL = ".finetui.incomplete"
CONNECTIONS = 4
TRIES_WITHOUT_PROGRESS = 6
STALL_SECONDS = 30.0
"""A connection that says nothing for so long is begun again."""

_WAIT_SECONDS = 0.25

Tell = Callable[[int, int], None]
"""Called a few times a second with the bytes that are here and those that there are."""


@dataclass(frozen=True)
class File:
    """A file of the repository. `sha256` is given for those that the hub stores by it."""

    name: str
    bytes: int
    sha256: str | None = None
    blob: str | None = None
    """Its name in the cache, where it is known before."""


@dataclass(frozen=True)
class Plan:
    """What a download brings."""

    repo: str
    commit: str
    files: tuple[File, ...]

    @property
    def total_bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def root(self) -> Path:
        return hub.cache_folder() / f"models--{self.repo.replace('/', '--')}"

    def bytes_here(self) -> int:
        """Bytes that are on the disk, those of files that were cut included."""
        snapshot = self.root / "snapshots" / self.commit
        total = 0
        for file in self.files:
            blob = file.sha256 or file.blob
            places = [snapshot / file.name]
            if blob:
                places += [self.root / "blobs" / blob, self.root / "blobs" / f"{blob}{PARTIAL}"]
            for place in places:
                with contextlib.suppress(OSError):
                    total += min(place.stat().st_size, file.bytes)
                    break
        return total


class Cancelled(Exception):
    """In a thread: another one failed, or the person ended it. Nobody sees it."""


def fetch(repo: str, revision: str | None, tell: Tell, check: Check = go_on, *, code: bool = False) -> Path:
    """The snapshot folder of `repo` at `revision`: safetensors, settings and tokenizer, no pickles, and Python files only
    with `code`.

    Raises FinetuiError (no-space, hub-offline and the others of `hub.card`), what `check` raises, and OSError where the
    disk is full.
    """
    try:
        return _fetch(repo, revision, tell, check, code)
    except (FinetuiError, Stopped):
        raise
    except Exception as error:  # the edge of huggingface_hub
        if failures.is_of_this_machine(error):
            raise
        raise hub.card(error, repo, "model") from error


def _fetch(repo: str, revision: str | None, tell: Tell, check: Check, code: bool) -> Path:
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = (*WANTED, *(CODE if code else ()))
    if hub.is_offline():
        return _snapshot(repo, revision, wanted, local=True)
    try:
        made = plan(repo, revision, wanted)
    except FinetuiError:
        raise
    except Exception:  # whatever kept the hub away, a copy that is already here is enough
        with contextlib.suppress(LocalEntryNotFoundError):
            return _snapshot(repo, revision, wanted, local=True)
        raise
    total = made.total_bytes
    with _alone(made, lambda: tell(made.bytes_here(), total), check):
        here = made.bytes_here()
        _check_space(made, total - here)
        tell(here, total)
        large = [f for f in made.files if f.sha256 and not (made.root / "blobs" / f.sha256).exists()]
        _all_at_once(
            [lambda stop, file=file: _bring(made, file, stop) for file in large],
            lambda: tell(made.bytes_here(), total),
            check,
        )
        for file in made.files:
            _link(made, file)
        found: list[Path] = []
        _all_at_once(
            [lambda _stop: found.append(_snapshot(repo, made.commit, wanted, local=False))],
            lambda: tell(made.bytes_here(), total),
            check,
        )
        _name_revision(made, revision)
        tell(total, total)
        return found[0]


def plan(repo: str, revision: str | None, wanted: tuple[str, ...] = WANTED) -> Plan:
    """What there is to bring. Asks the hub. Raises FinetuiError for file names that lead out of the repository, and
    what huggingface_hub raises."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects

    api = HfApi(endpoint=hub.endpoint(), token=hub_token() or False)
    facts = api.model_info(repo, revision=revision, files_metadata=True, timeout=20)
    siblings = facts.siblings or []
    check_names([s.rfilename for s in siblings], repo)
    names = set(
        filter_repo_objects(
            [s.rfilename for s in siblings], allow_patterns=list(wanted), ignore_patterns=list(UNWANTED)
        )
    )
    files = tuple(
        File(s.rfilename, s.size or 0, _sha256(s.lfs), s.blob_id) for s in siblings if s.rfilename in names
    )
    return Plan(repo, facts.sha or revision or "main", files)


def _sha256(lfs: Any) -> str | None:
    found = getattr(lfs, "sha256", None) if lfs else None
    valid = isinstance(found, str) and len(found) == 64 and all(c in "0123456789abcdef" for c in found)
    return found if valid else None


def _snapshot(repo: str, revision: str | None, wanted: tuple[str, ...], *, local: bool) -> Path:
    from huggingface_hub import snapshot_download

    hub.quiet()
    return Path(
        snapshot_download(
            repo,
            revision=revision,
            cache_dir=hub.cache_folder(),
            endpoint=hub.endpoint(),
            token=hub_token() or False,
            allow_patterns=list(wanted),
            ignore_patterns=list(UNWANTED),
            local_files_only=local,
        )
    ).absolute()


@contextlib.contextmanager
def _alone(made: Plan, tell: Callable[[], None], check: Check) -> Iterator[None]:
    """Holds the repository's lock, waiting for whoever has it. File systems without locks are gone on without."""
    folder = hub.cache_folder() / ".locks" / made.root.name
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "finetui.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                tell()
                check()
                time.sleep(_WAIT_SECONDS)
            except OSError:
                break
        yield
    finally:
        os.close(descriptor)


def _check_space(made: Plan, needed: int) -> None:
    folder = next(p for p in (made.root, *made.root.parents) if p.exists())
    free = shutil.disk_usage(folder).free
    if needed > 0 and needed + SPARE_BYTES > free:
        raise FinetuiError(
            f"There is too little space for {one_line(made.repo, 100)}.",
            f"{bytes_words(needed)} are still to be downloaded, and {folder} has {bytes_words(free)} free.",
            "Free some space, or set HF_HOME to a folder on a larger disk.",
            code="no-space",
        )


def _all_at_once(
    jobs: list[Callable[[threading.Event], None]], tell: Callable[[], None], check: Check
) -> None:
    """Runs `jobs` in threads, telling and checking meanwhile. The first failure, or `check`, ends all of them."""
    stop = threading.Event()
    pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="download")
    running = {pool.submit(job, stop) for job in jobs}
    try:
        while running:
            done, running = wait(running, timeout=_WAIT_SECONDS)
            for future in done:
                future.result()
            tell()
            check()
    except BaseException:
        stop.set()
        for future in running:
            future.cancel()
        wait(running, timeout=3)  # a thread that waits for a silent server is not waited for
        raise
    finally:
        pool.shutdown(wait=False)


def _bring(made: Plan, file: File, stop: threading.Event) -> None:
    """Brings one large file whole into the cache's blobs, from where an earlier attempt ended."""
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    assert file.sha256 is not None
    blob = made.root / "blobs" / file.sha256
    blob.parent.mkdir(parents=True, exist_ok=True)
    partial = blob.with_name(blob.name + PARTIAL)
    failures_in_a_row = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            if before < file.bytes:
                _pull(made, file, partial, stop)
            break
        except (httpx.TransportError, hub_http.Bounded, TimeoutError, HfHubHTTPError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status is not None and status not in (408, 429, 500, 502, 503, 504):
                raise
            grown = partial.exists() and partial.stat().st_size > before
            failures_in_a_row = 1 if grown else failures_in_a_row + 1
            if failures_in_a_row >= TRIES_WITHOUT_PROGRESS:
                raise
            asked = hub.retry_after_seconds(_header(error, "Retry-After"))
            if stop.wait(min(asked or 2.0 ** (failures_in_a_row - 1) / 2, 60.0)):
                raise Cancelled from None
    if _digest(partial, stop) != file.sha256:
        partial.unlink(missing_ok=True)
        raise FinetuiError(
            f"{one_line(file.name, 80)} arrived damaged.",
            "Its SHA-256 is not the one that the hub gives.",
            "Download it again; if that does not help, a proxy on the way changes what passes.",
            code="hub-damaged",
        )
    partial.replace(blob)


def _link(made: Plan, file: File) -> None:
    """Puts a blob into the snapshot under its name, as huggingface_hub does, which then asks the hub no more about it."""
    pointer = made.root / "snapshots" / made.commit / file.name
    if file.sha256 is None or not (made.root / "blobs" / file.sha256).exists():
        return
    with contextlib.suppress(OSError):  # a file system without links: huggingface_hub has another way
        pointer.parent.mkdir(parents=True, exist_ok=True)
        if pointer.is_symlink() and not pointer.exists():
            pointer.unlink()
        pointer.symlink_to(os.path.relpath(made.root / "blobs" / file.sha256, pointer.parent))


def _header(error: BaseException, name: str) -> str | None:
    response = getattr(error, "response", None)
    return response.headers.get(name) if response is not None else None


def _pull(made: Plan, file: File, partial: Path, stop: threading.Event) -> None:
    """One connection's worth of `file`, appended to `partial`. Raises httpx.HTTPError and Bounded where it is cut."""
    start = partial.stat().st_size if partial.exists() else 0
    address = hub_http.file_address(made.repo, made.commit, file.name)
    with hub_http.opened(address, {"Range": f"bytes={start}-"}, STALL_SECONDS) as response:
        whole = response.status_code == 200
        at = 0 if whole else start
        if not whole and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise hub_http.Bounded("the server sent another part than was asked for")
        with partial.open("wb" if whole else "ab") as out:
            for part in response.iter_raw():
                if stop.is_set():
                    raise Cancelled
                at += len(part)
                if at > file.bytes:
                    raise hub_http.Bounded("the server sent more than the file has")
                out.write(part)
    if at < file.bytes:
        raise hub_http.Bounded(f"the connection was closed after {at} of {file.bytes} bytes")


def _digest(path: Path, stop: threading.Event) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(4 * 1024**2):
            if stop.is_set():
                raise Cancelled
            digest.update(part)
    return digest.hexdigest()


def _name_revision(made: Plan, revision: str | None) -> None:
    """Writes which commit the branch or tag stands for, as huggingface_hub does, so that it is found without network."""
    name = revision or "main"
    if name == made.commit or ".." in name.split("/") or name.startswith("/"):
        return
    reference = made.root / "refs" / name
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(made.commit, encoding="ascii")
