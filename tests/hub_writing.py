"""The half of the small hub that is written to: accounts, new repositories, large objects, commits.

It speaks what the real huggingface_hub asks for: whoami, create, preupload, the LFS batch with one PUT for an object, and
commits; or, with `Uploads.xet`, the token that makes the real hf_xet write into a folder. Faults are set in `Uploads`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Uploads:
    """What was written, and how it is taken."""

    account: dict[str, Any] | None = field(
        default_factory=lambda: {
            "type": "user",
            "name": "me",
            "orgs": [{"name": "ours"}],
            "auth": {"accessToken": {"role": "write"}},
        }
    )
    """What whoami answers; None: the token is not known."""
    refuse: dict[str, int] = field(default_factory=dict)
    """Statuses by step: create, preupload, batch, put, commit."""
    message: str = ""
    """Sent along with them, as the hub says why."""
    retry_after: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    """Large objects by their SHA-256."""
    received: list[tuple[str, int]] = field(default_factory=list)
    """SHA-256 and bytes of each PUT, those that were cut included."""
    bytes_per_second: float = 0.0
    cut_after: list[int] = field(default_factory=list)
    """The next PUTs are cut after so many bytes, one entry for each."""
    commits: list[dict[str, Any]] = field(default_factory=list)
    """Repository, summary and the files of each commit."""
    spoil: bool = False
    """Large objects are kept with a byte changed, as a broken disk does."""
    xet: Path | None = None
    """The folder that stands for the store of hf_xet."""
    pointers: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """By repository and path: what is said of the files that are in that store."""


class Writing:
    """Mixed into the handler."""

    hub: Any
    headers: Any
    rfile: Any
    command: str
    close_connection: bool
    _posted: bytes
    _json: Any
    _refuse: Any
    _send: Any

    def _read_body(self) -> bytes:
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            return b"".join(iter(self._chunk, b""))
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline() or b"0", 16)
        part = self.rfile.read(size)
        self.rfile.readline()
        return part

    def _write(self, path: str) -> bool:
        """Answers what has to do with writing; False where it is none of that."""
        if path == "api/whoami-v2":
            account = self.hub.uploads.account
            self._json(account) if account else self._refuse(401, "")
        elif path == "api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path == "api/repos/create":
            self._create(json.loads(self._posted))
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(path.removesuffix(".git/info/lfs/objects/batch"), json.loads(self._posted))
        elif "/xet-write-token/" in path and self.hub.uploads.xet is not None:
            cas, until = f"local://{self.hub.uploads.xet}", int(time.time()) + 3600
            self._json({"accessToken": "a", "exp": until, "casUrl": cas})
        elif self.command == "POST" and path.startswith("api/models/") and "/preupload/" in path:
            self._preupload(self._repository(path, "/preupload/"), json.loads(self._posted))
        elif self.command == "POST" and path.startswith("api/models/") and "/commit/" in path:
            self._commit(self._repository(path, "/commit/"))
        else:
            return False
        return True

    def _repository(self, path: str, before: str) -> Any:
        name = path.removeprefix("api/models/").split(before)[0]
        return next(r for r in self.hub.repositories if r.kind == "models" and r.id == name)

    def _refused(self, step: str) -> bool:
        uploads = self.hub.uploads
        status = uploads.refuse.get(step)
        if status is None:
            return False
        headers = {"X-Error-Message": uploads.message} if uploads.message else {}
        if uploads.retry_after:
            headers["Retry-After"] = uploads.retry_after
        self._send(status, b"{}", headers)
        return True

    def _create(self, asked: dict[str, Any]) -> None:
        if self._refused("create"):
            return
        name = f"{asked.get('organization') or self.hub.uploads.account['name']}/{asked['name']}"
        if any(r.kind == "models" and r.id == name for r in self.hub.repositories):
            told = {"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}
            self._send(409, json.dumps(told).encode(), {})
            return
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.add("models", name, {".gitattributes": b"*.gguf filter=lfs\n"}, private=private)
        self._json({"url": f"{self.hub.url}/{name}"})

    def _preupload(self, repository: Any, asked: dict[str, Any]) -> None:
        if self._refused("preupload"):
            return
        told = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith((".safetensors", ".gguf")) else "regular",
                "shouldIgnore": False,
                "oid": self._oid_of(repository.files.get(file["path"]), file["path"]),
            }
            for file in asked["files"]
        ]
        self._json({"files": told})

    @staticmethod
    def _oid_of(content: bytes | None, name: str) -> str | None:
        if content is None:
            return None
        if name.endswith((".safetensors", ".gguf")):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    def _batch(self, name: str, asked: dict[str, Any]) -> None:
        if self._refused("batch"):
            return
        objects: list[dict[str, Any]] = []
        for one in asked["objects"]:
            told = {"oid": one["oid"], "size": one["size"]}
            if one["oid"] not in self.hub.uploads.objects:
                told["actions"] = {"upload": {"href": f"{self.hub.url}/objects/{one['oid']}"}}
            objects.append(told)
        self._json({"transfer": "basic", "objects": objects})

    def _take_object(self, path: str) -> None:
        uploads = self.hub.uploads
        oid = path.rpartition("/")[2]
        if self._refused("put"):
            self.close_connection = True
            return
        left = int(self.headers["Content-Length"])
        limit = uploads.cut_after.pop(0) if uploads.cut_after else left
        content = b""
        uploads.received.append((oid, 0))
        at = len(uploads.received) - 1
        while len(content) < min(left, limit):
            part = self.rfile.read(min(65536, left - len(content)))
            if not part:
                break
            content += part
            uploads.received[at] = (oid, len(content))
            if uploads.bytes_per_second:
                time.sleep(len(part) / uploads.bytes_per_second)
        if len(content) < left:
            self.close_connection = True
            return
        if hashlib.sha256(content).hexdigest() != oid:
            self._send(400, b"{}", {})
            return
        uploads.objects[oid] = content
        self._send(200, b"", {"ETag": '"x"'})

    def _commit(self, repository: Any) -> None:
        if self._refused("commit"):
            return
        uploads = self.hub.uploads
        lines = [json.loads(line) for line in self._posted.splitlines() if line.strip()]
        names: list[str] = []
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                content = base64.b64decode(value["content"])
            elif uploads.xet is not None:
                content = b""
                lfs = {"sha256": value["oid"], "oid": value["oid"], "size": value["size"], "pointerSize": 130}
                uploads.pointers[repository.id, value["path"]] = {"size": value["size"], "lfs": lfs}
            else:
                content = uploads.objects[value["oid"]]
                content = content[:-1] + b"!" if uploads.spoil else content
            repository.files[value["path"]] = content
            names.append(value["path"])
        uploads.commits.append(
            {"repo": repository.id, "summary": lines[0]["value"]["summary"], "files": names}
        )
        address = f"{self.hub.url}/{repository.id}/commit/0123456789abcdef0123456789abcdef01234567"
        self._json({"commitUrl": address, "commitOid": "0123456789abcdef0123456789abcdef01234567"})
