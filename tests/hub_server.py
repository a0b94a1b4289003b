"""A small hub on this machine, spoken to by the real huggingface_hub and datasets through HF_ENDPOINT.

It speaks what they ask for: repository info, the file tree, paths-info, and files by the resolve endpoint, with
ranges. Faults are set per repository: gated, private, a status for everything, slow, cut half-way, sent elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub.constants
import pytest

from .hub_writing import Uploads, Writing

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """One repository. `kind` is `models` or `datasets`; `files` by path."""

    kind: str
    id: str
    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    status: int | None = None
    """Answered to every request, as a hub in trouble does."""
    info: dict[str, Any] = field(default_factory=dict)
    """Put over what the info endpoint says, such as safetensors or cardData."""
    retry_after: str = ""
    """Sent along with `status`."""
    bytes_per_second: float = 0.0
    """How fast stored-by-SHA-256 files are given out; 0 is as fast as it goes."""
    cut_after: list[int] = field(default_factory=list)
    """The next answers with such a file end after so many bytes, one entry for each."""
    redirect: str = ""
    """Such files are given out by this other address, as from a CDN."""


@dataclass
class Hub:
    """The running server."""

    url: str
    repositories: list[Repository] = field(default_factory=list)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Authorization header of each request."""
    ranges: list[tuple[str, str]] = field(default_factory=list)
    """Path and Range header of each GET of a file."""
    queries: list[dict[str, list[str]]] = field(default_factory=list)
    """The searches."""
    found: list[dict[str, Any]] = field(default_factory=list)
    """What every search finds."""
    status: int | None = None
    """Answered to every search, as a hub in trouble does."""
    retry_after: str = ""
    uploads: Uploads = field(default_factory=Uploads)
    """What was written to it, and how it takes that."""

    def add(self, kind: str, id: str, files: dict[str, bytes], **more: Any) -> Repository:
        repository = Repository(kind, id, files, **more)
        self.repositories.append(repository)
        return repository


def reach(monkeypatch: pytest.MonkeyPatch, hub: Hub, home: Path, **more: str) -> None:
    """Makes `hub` the hub of this process and of those that it starts, with the hub's own files under `home`."""
    for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), **more}.items():
        monkeypatch.setenv(name, value)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    # Read once, at the import that another test may have made.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


class _Server(ThreadingHTTPServer):
    request_queue_size = 64  # a client that asks for many files at once is not turned away


@contextmanager
def running() -> Iterator[Hub]:
    """A hub on a free port of this machine, for the length of a `with`."""
    hub = Hub("")

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = _Server(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _oid(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def _lfs(name: str, content: bytes) -> dict[str, Any]:
    """What the hub says of a file that it stores by its SHA-256."""
    if not name.endswith((".safetensors", ".gguf")):
        return {}
    sha256 = hashlib.sha256(content).hexdigest()
    return {"lfs": {"sha256": sha256, "oid": sha256, "size": len(content), "pointerSize": 130}}


class _Handler(Writing, BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed."""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_POST(self) -> None:
        self._posted = self._read_body()
        self._answer(body=True)

    def do_PUT(self) -> None:
        self.hub.requests.append((self.command, self.path.strip("/"), self.headers.get("Authorization")))
        self._body = True
        self._take_object(self.path.strip("/"))

    def _answer(self, body: bool) -> None:
        self._body = body
        url = urlsplit(self.path)
        path = unquote(url.path).strip("/")
        self.hub.requests.append((self.command, path, self.headers.get("Authorization")))
        if self._write(path):
            return
        is_api = path.startswith("api/")
        path = path.removeprefix("api/")
        kind = "datasets" if path.startswith("datasets/") else "models"
        path = path.removeprefix("models/").removeprefix("datasets/")
        if is_api and path == "models":
            self.hub.queries.append(parse_qs(url.query))
            if self.hub.status is not None:
                self._refuse(self.hub.status, "", retry_after=self.hub.retry_after)
            else:
                self._json(self.hub.found)
            return
        found = [r for r in self.hub.repositories if r.kind == kind and (path + "/").startswith(r.id + "/")]
        if not found or (found[0].private and not self.headers.get("Authorization")):
            self._refuse(401 if not self.headers.get("Authorization") else 404, "RepoNotFound")
            return
        repository = found[0]
        if repository.status is not None:
            self._refuse(repository.status, "", retry_after=repository.retry_after)
            return
        rest = path.removeprefix(repository.id).strip("/").split("/", 2)
        if is_api:
            self._api(repository, rest, parse_qs(url.query))
        elif rest[0] == "resolve" and len(rest) == 3:
            self._resolve(repository, rest[1], rest[2])
        else:
            self._refuse(404, "EntryNotFound")

    def _api(self, repository: Repository, rest: list[str], query: dict[str, list[str]]) -> None:
        action = rest[0]
        if action in ("revision", "tree", "paths-info") and not self._knows(rest[1]):
            self._refuse(404, "RevisionNotFound")
        elif action in ("", "revision"):
            self._json(
                {
                    "id": repository.id,
                    "sha": COMMIT,
                    "private": repository.private,
                    "gated": "manual" if repository.gated else False,
                    "tags": [],
                    "siblings": [
                        {
                            "rfilename": n,
                            "size": len(c),
                            "blobId": _oid(c),
                            **_lfs(n, c),
                            **self.hub.uploads.pointers.get((repository.id, n), {}),
                        }
                        for n, c in repository.files.items()
                    ],
                    **repository.info,
                }
            )
        elif action == "tree":
            folder = rest[2].strip("/") if len(rest) > 2 else ""
            entries = self._entries(repository)
            inside = [e for e in entries if not folder or e["path"].startswith(folder + "/")]
            if folder and not inside:
                self._refuse(404, "EntryNotFound")
            elif "true" in [value.lower() for value in query.get("recursive", [])]:
                self._json(inside)
            else:
                depth = folder.count("/") + 1 if folder else 0
                self._json([e for e in inside if e["path"].count("/") == depth])
        elif action == "paths-info":
            if self.headers.get("Content-Type", "").startswith("application/json"):
                wanted = json.loads(self._posted)["paths"]
            else:
                wanted = parse_qs(self._posted.decode()).get("paths", [])
            self._json([e for e in self._entries(repository) if e["path"] in wanted])
        else:
            self._refuse(404, "EntryNotFound")

    @staticmethod
    def _knows(revision: str) -> bool:
        return revision in ("main", COMMIT)

    @staticmethod
    def _entries(repository: Repository) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        folders: set[str] = set()
        for name, content in repository.files.items():
            parts = name.split("/")[:-1]
            for depth in range(1, len(parts) + 1):
                folder = "/".join(parts[:depth])
                if folder not in folders:
                    folders.add(folder)
                    entries.append({"type": "directory", "path": folder, "oid": "0" * 40, "size": 0})
            oid = _oid(content)
            entries.append(
                {"type": "file", "path": name, "oid": oid, "size": len(content), **_lfs(name, content)}
            )
        return entries

    def _resolve(self, repository: Repository, revision: str, name: str) -> None:
        if repository.gated:
            self._refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
            return
        if not self._knows(revision):
            self._refuse(404, "RevisionNotFound")
            return
        content = repository.files.get(name)
        if content is None:
            self._refuse(404, "EntryNotFound", commit=True)
            return
        self.hub.ranges.append((f"{repository.id}/{name}", self.headers.get("Range", "")))
        etag = _lfs(name, content).get("lfs", {}).get("sha256") or _oid(content)
        if repository.redirect and _lfs(name, content):
            self._send(
                302,
                b"",
                {
                    "Location": f"{repository.redirect}/{repository.id}/resolve/{revision}/{name}",
                    "X-Linked-ETag": f'"{etag}"',
                    "X-Linked-Size": str(len(content)),
                    "X-Repo-Commit": COMMIT,
                },
            )
            return
        status, part, more = 200, content, {}
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes="):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first or 0), min(int(last or len(content) - 1), len(content) - 1)
            status, part = 206, content[start : end + 1]
            more = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes", **more}
        if self._body and _lfs(name, content) and len(part) > 65536:  # a reading of the header is let through
            self._give(repository, status, part, headers)
        else:
            self._send(status, part, headers)

    def _give(self, repository: Repository, status: int, content: bytes, headers: dict[str, str]) -> None:
        """A large file: slowly where the repository is slow, and cut where it is cut."""
        end = repository.cut_after.pop(0) if repository.cut_after else len(content)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        for start in range(0, min(end, len(content)), 16384):
            try:
                self.wfile.write(content[start : min(start + 16384, end)])
                self.wfile.flush()
            except OSError:  # the other side has gone
                self.close_connection = True
                return
            if repository.bytes_per_second:
                time.sleep(16384 / repository.bytes_per_second)
        if end < len(content):
            self.close_connection = True

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, commit: bool = False, retry_after: str = "") -> None:
        headers = {"X-Error-Code": code} if code else {}
        if retry_after:
            headers["Retry-After"] = retry_after
        if commit:
            headers["X-Repo-Commit"] = COMMIT
        self._send(status, json.dumps({"error": code or f"status {status}"}).encode(), headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self._body:
            self.wfile.write(content)
