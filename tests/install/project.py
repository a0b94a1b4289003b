"""A small project with the real Makefile and bootstrap, whose pinned list installs in seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIRST_LINE = "the product speaks"
METADATA = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "finetui"
version = "0"
[project.scripts]
finetui = "finetui.tui.__main__:main"
"""
UNREACHABLE = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_FIND_LINKS": "",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_RETRIES": "1",
    "PIP_NO_CACHE_DIR": "1",
}


@dataclass
class Project:
    """A project folder, and how to run make in it with an environment of the test's choice."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def site(self) -> Path:
        return self.venv / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"

    @property
    def log(self) -> str:
        return (self.venv / "install.log").read_text()

    def start(
        self, changes: Mapping[str, str] | None = None, before: Callable[[], None] | None = None
    ) -> subprocess.Popen[str]:
        """Start `make run` in a session of its own, its output in a pipe; `before` runs in the child first."""
        return subprocess.Popen(
            ["make", "--no-print-directory", "run"],
            cwd=self.root,
            env={**self.environment, **(changes or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=before,
        )

    def make(
        self, changes: Mapping[str, str] | None = None, before: Callable[[], None] | None = None
    ) -> tuple[int, str]:
        """Run `make run` with changes to the environment; returns its exit status and what it printed."""
        with self.start(changes, before) as process:
            output, _ = process.communicate(timeout=600)
        return process.returncode, output


def create(root: Path) -> Project:
    """Lay the project out in an empty folder."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copytree(ROOT / "bootstrap", root / "bootstrap", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "setup.py"):
        shutil.copy(ROOT / name, root / name)
    (root / "pyproject.toml").write_text(METADATA)
    for name in ("core", "tui", "requirements"):
        (root / name).mkdir()
    (root / "core" / "__init__.py").touch()
    (root / "tui" / "__init__.py").touch()
    (root / "tui" / "__main__.py").write_text(f"def main():\n    print({FIRST_LINE!r})\n")
    (root / "requirements" / "cpu.txt").write_text(f"iniconfig==2.3.1\n{pin('setuptools')}\n")
    (root / "requirements" / "dev.txt").write_text("pluggy==1.7.0\n")
    dropped = ("MAKE", "PYTHON", "FINETUI_", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return Project(root, kept | {"FINETUI_TORCH": "cpu", "PYTHON": sys.executable})


def pin(name: str) -> str:
    """The line of the real CPU list that pins a package."""
    lines = (ROOT / "requirements" / "cpu.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith(name + "=="))


def spoken(output: str) -> list[str]:
    """The lines that finetui itself printed to say what is wrong, without make's own last line."""
    return [line for line in output.splitlines() if line and not line.startswith(("make:", "make["))]
