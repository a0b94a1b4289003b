"""The wheel that `pip install finetui` gets: every module and data file of core/ and tui/, and nothing else."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.install.project import ROOT


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, so that building leaves nothing behind, with a new folder no list knows of."""
    root = tmp_path_factory.mktemp("source")
    for name in ("core", "tui", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / name)
    fresh = root / "core" / "just_added" / "data"
    fresh.mkdir(parents=True)
    (fresh.parent / "__init__.py").touch()
    (fresh / "rows.jsonl").write_text("{}\n")
    return root


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        "dist",
        ".",
    ]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    [path] = (source / "dist").glob("finetui-*-py3-none-any.whl")
    return path


def test_it_holds_the_two_folders_and_nothing_else(source: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {
        f"finetui/{path.relative_to(source)}"
        for folder in ("core", "tui")
        for path in (source / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == wanted
    assert "finetui/core/just_added/data/rows.jsonl" in packed
    assert {"finetui/core/py.typed", "finetui/tui/py.typed"} <= packed


def test_it_names_the_command_and_the_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [entries] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
        scripts = configparser.ConfigParser()
        scripts.read_string(archive.read(entries).decode())
    assert scripts["console_scripts"]["finetui"] == "finetui.tui.__main__:main"


def test_it_imports_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(command, check=True)
    script = "import finetui.core, finetui.tui, finetui.core.just_added as new; print(finetui.tui.__file__, new.__file__)"
    shown = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split() == [
        str(target / "finetui" / part) for part in ("tui/__init__.py", "core/just_added/__init__.py")
    ]
