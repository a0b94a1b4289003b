"""A Python that is too old, too new or missing is told in one line; a right one elsewhere on PATH is used."""

from __future__ import annotations

import ast
import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.install.project import ROOT, create, spoken


def pretend(version: tuple[int, int], root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the bootstrap in this interpreter as if it were another version."""
    script = (
        "import runpy, sys\n"
        f"sys.version_info = {(*version, 0, 'final', 0)!r}\n"
        "runpy.run_module('bootstrap', run_name='__main__', alter_sys=True)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script], cwd=root, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py"])
def test_the_first_file_parses_on_python_3_6(name: str) -> None:
    ast.parse((ROOT / "bootstrap" / name).read_text(), feature_version=(3, 6))


@pytest.mark.parametrize("version", [(3, 6), (3, 8), (3, 10), (3, 14)])
def test_an_unsupported_python_is_one_line(version: tuple[int, int], tmp_path: Path) -> None:
    answer = pretend(version, ROOT, PATH=str(tmp_path))
    assert answer.returncode == 1
    [line] = answer.stderr.splitlines()
    assert "needs Python 3.11, 3.12 or 3.13" in line
    assert f"{version[0]}.{version[1]}" in line
    assert answer.stdout == ""


def test_a_python_that_was_asked_for_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "python3.11").symlink_to(sys.executable)
    answer = pretend((3, 9), ROOT, PATH=str(tmp_path), PYTHON="python3.9")
    assert answer.returncode == 1
    assert "PYTHON=python3.9 is 3.9" in answer.stderr


def test_every_old_python_on_this_machine_says_it(tmp_path: Path) -> None:
    places = [*glob.glob("/root/.pyenv/versions/3.*/bin/python"), *glob.glob("/usr/bin/python3.?")]
    # The oldest grammar is held by the parse test above; here stands whatever this machine happens to have.
    for python in places:
        version = subprocess.check_output([python, "-c", "import sys; print(sys.version_info[:2] < (3, 11))"])
        if version.strip() != b"True":
            continue
        answer = subprocess.run(
            [python, "-ES", "-m", "bootstrap"],
            cwd=ROOT,
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == 1, python
        [line] = answer.stderr.splitlines()
        assert "needs Python 3.11, 3.12 or 3.13" in line, python


def test_a_supported_python_elsewhere_on_the_path_takes_over(tmp_path: Path) -> None:
    project = create(tmp_path / "project")
    (project.root / "requirements" / "cpu.txt").write_text("# disk: 9000000 GB\n")
    path = tmp_path / "bin"
    path.mkdir()
    (path / f"python3.{sys.version_info[1]}").symlink_to(Path(sys.executable).resolve())
    answer = pretend((3, 8), project.root, PATH=str(path), FINETUI_TORCH="cpu")
    assert f"with Python 3.{sys.version_info[1]}" in answer.stdout
    assert "not enough disk" in answer.stderr


def test_no_python_at_all_is_one_line(tmp_path: Path) -> None:
    project = create(tmp_path)
    status, output = project.make({"PYTHON": "python-that-is-not-here"})
    assert status != 0
    [line] = spoken(output)
    assert "there is no python-that-is-not-here here" in line
    assert "3.11, 3.12 or 3.13" in line


def test_make_without_a_venv_module_says_so(tmp_path: Path) -> None:
    """A Python whose standard library lacks venv, as some distributions ship it."""
    project = create(tmp_path / "project")
    (project.root / "venv.py").write_text("raise ImportError('No module named ensurepip')\n")
    status, output = project.make()
    assert status != 0
    assert "comes without its venv module" in spoken(output)[-1]
    assert "Traceback" not in output
    assert not shutil.which("finetui", path=os.fspath(project.venv / "bin"))
