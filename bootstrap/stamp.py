"""What `.venv` should hold, what it does hold, and the stamp that says that the two agree.

The stamp is removed before anything is changed and written last, so its presence means that an install
finished. Comparing it costs a few milliseconds and no pip.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import re
import subprocess
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path

STAMP = "finetui-install.json"


@dataclass(frozen=True)
class Stamp:
    """What an install that finished was made of.

    `lists` maps a list's file name to the SHA-256 of its requirements, `entries` each name at the top of
    site-packages to the number of files and folders directly in it (1 for a file).
    """

    root: str
    torch: str
    gpu_nodes: bool
    project: str
    lists: dict[str, str]
    entries: dict[str, int] = field(default_factory=dict)


def requirements(path: Path) -> list[str]:
    """The requirement lines of a pinned list, comments left out."""
    lines = (line.split("#", 1)[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def disk_gigabytes(path: Path) -> float:
    """The free space that a list says it needs, in GB: its line `# disk: 2.5 GB` (0 without one)."""
    match = re.search(r"^# disk: ([\d.]+) GB$", path.read_text(encoding="utf-8"), re.M)
    return float(match[1]) if match else 0.0


def digest(data: object) -> str:
    """A SHA-256 over anything that JSON can hold."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def project_digest(root: Path) -> str:
    """Changes when the installed metadata would: [project], [build-system], [tool.setuptools] and setup.py."""
    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    setup = root / "setup.py"
    return digest(
        [
            table.get("project"),
            table.get("build-system"),
            table.get("tool", {}).get("setuptools"),
            setup.read_text(encoding="utf-8") if setup.exists() else "",
        ]
    )


def gpu_nodes() -> bool:
    """Whether the kernel shows an NVIDIA device; the cheap half of the question "is there a GPU?"."""
    return bool(glob.glob("/dev/nvidia[0-9]*")) or os.path.exists("/dev/dxg")


def site_packages(venv: Path) -> Path | None:
    """The site-packages of the Python that `.venv` runs; None when that Python is gone."""
    command = [str(venv / "bin" / "python"), "-ES", "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    site = venv / "lib" / f"python{answer.stdout.strip()}" / "site-packages"
    return site if site.is_dir() else None


def entries(site: Path) -> dict[str, int]:
    """Each name in site-packages with how much lies directly in it (bytecode left out: it comes and goes)."""
    counted: dict[str, int] = {}
    for entry in os.scandir(site):
        if entry.name == "__pycache__":
            continue
        counted[entry.name] = 1
        if entry.is_dir():
            counted[entry.name] = sum(name != "__pycache__" for name in os.listdir(entry.path))
    return counted


def read(venv: Path) -> Stamp | None:
    """The stamp of a `.venv`; None when there is none or it cannot be read."""
    try:
        return Stamp(**json.loads((venv / STAMP).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def write(venv: Path, stamp: Stamp) -> None:
    """Write the stamp whole, or not at all."""
    fresh = venv / (STAMP + ".new")
    with fresh.open("w", encoding="utf-8") as file:
        json.dump(asdict(stamp), file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(venv / STAMP)


def damaged(stamp: Stamp, site: Path) -> bool:
    """Whether something that the install put into site-packages has gone since."""
    now = entries(site)
    return any(now.get(name, 0) < count for name, count in stamp.entries.items())


def remove_broken_distributions(site: Path) -> list[str]:
    """Forget every package whose files are not all there with their sizes, so that pip installs it again.

    Returns the names forgotten. An interrupted pip leaves a package with no RECORD, or with half its files.
    """
    broken: list[str] = []
    for info in sorted(site.glob("*.dist-info")):
        if not _intact(site, info):
            for path in sorted(info.rglob("*"), reverse=True):
                path.unlink() if path.is_symlink() or not path.is_dir() else path.rmdir()
            info.rmdir()
            broken.append(info.name.split("-", 1)[0])
    return broken


def _intact(site: Path, info: Path) -> bool:
    try:
        with (info / "RECORD").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        for name, _hash, size in rows:
            if size and (site / name).stat().st_size != int(size):
                return False
            if not size and not name.endswith((".pyc", "RECORD")) and not (site / name).exists():
                return False
    except (OSError, ValueError):
        return False
    return bool(rows)
