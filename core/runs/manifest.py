"""`manifest.json`: how a run's newest worker was started, and with which versions."""

from __future__ import annotations

import json
import platform
import socket
import sys
from dataclasses import asdict, dataclass, field
from importlib import metadata

from .. import atomic
from .store import RunFolder

PACKAGES = (
    "finetui",
    "torch",
    "unsloth",
    "unsloth_zoo",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "tokenizers",
    "accelerate",
    "bitsandbytes",
    "triton",
)
"""The packages whose versions decide what a run does."""

MAX_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Manifest:
    """The newest start of a worker on a run. Times in seconds since the epoch; `how` is cold or warm."""

    job: str
    pid: int
    create_time: float
    host: str
    launched_ts: float
    how: str = "cold"
    formats: tuple[str, ...] = ()
    python: str = field(default_factory=platform.python_version)
    platform: str = field(default_factory=platform.platform)
    versions: dict[str, str] = field(default_factory=dict)
    starts: int = 1
    """How many workers this run has had, this one included."""
    trained_with: dict[str, str] = field(default_factory=dict)
    """The versions of the newest worker that trained."""
    sources: dict[str, str] = field(default_factory=dict)
    """Path → print of the files behind the run, from its first start on (`sources.prints`)."""
    anyway: bool = False
    """The person agreed to go on although something has changed since."""


def this_host() -> str:
    """The name under which workers of this machine sign."""
    return socket.gethostname()


def versions() -> dict[str, str]:
    """The installed versions of `PACKAGES`, read from their metadata: nothing is imported."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def write(run: RunFolder, manifest: Manifest) -> None:
    """Writes the manifest whole. Raises OSError."""
    body = {"v": 1, **asdict(manifest), "executable": sys.executable}
    atomic.write_text(run.manifest, json.dumps(body, indent=2) + "\n")


def read(run: RunFolder) -> Manifest | None:
    """The run's manifest, or None where there is none that can be read."""
    try:
        with run.manifest.open("rb") as file:
            data = json.loads(file.read(MAX_BYTES))
        return Manifest(
            job=str(data["job"]),
            pid=int(data["pid"]),
            create_time=float(data["create_time"]),
            host=str(data["host"]),
            launched_ts=float(data["launched_ts"]),
            how=str(data.get("how", "cold")),
            formats=tuple(str(f) for f in data.get("formats", ())),
            python=str(data.get("python", "")),
            platform=str(data.get("platform", "")),
            versions=_texts(data.get("versions", {})),
            starts=int(data.get("starts", 1)),
            trained_with=_texts(data.get("trained_with", {})),
            sources=_texts(data.get("sources", {})),
            anyway=data.get("anyway") is True,
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _texts(told: object) -> dict[str, str]:
    return {str(key): str(value) for key, value in told.items()} if isinstance(told, dict) else {}
