"""The import contracts hold, and each of them really breaks when someone breaks it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.install.project import ROOT


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources under their package name, with a worker in it."""
    package = tmp_path / "finetui"
    for name in ("core", "tui"):
        shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "core" / "worker").mkdir(exist_ok=True)
    (package / "core" / "worker" / "__init__.py").touch()
    (package / "core" / "worker" / "probe.py").write_text("import torch\nfrom .. import __doc__\n")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return package


def lint(package: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter as `make check` does."""
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()",
        ]
        + ["--no-cache"],
        cwd=package.parent,
        env=os.environ | {"PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_contracts_hold_with_a_worker_that_uses_torch(tree: Path) -> None:
    result = lint(tree)
    assert result.returncode == 0, result.stdout
    assert "3 kept, 0 broken" in result.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("core/probe.py", "from ..tui import __doc__", "The screens use the core"),
        ("core/probe.py", "from .worker import probe", "Nothing outside the worker imports the worker"),
        (
            "tui/probe.py",
            "from ..core.worker.probe import __doc__",
            "Nothing outside the worker imports the worker",
        ),
        ("tui/probe.py", "def later():\n    import transformers", "stay free of torch"),
        ("core/probe.py", "from unsloth import FastLanguageModel", "stay free of torch"),
        ("core/probe.py", "import datasets", "stay free of torch"),
    ],
)
def test_a_contract_breaks(tree: Path, file: str, line: str, contract: str) -> None:
    (tree / file).write_text(line + "\n")
    result = lint(tree)
    assert result.returncode != 0
    [broken] = [text for text in result.stdout.splitlines() if contract in text and "BROKEN" in text]
    assert broken
