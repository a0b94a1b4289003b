"""A `.venv` that is broken, half made, out of date, or wanted by two at once ends up right."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.install.project import FIRST_LINE, Project, create, spoken


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = create(tmp_path_factory.mktemp("installed") / "project")
    status, output = project.make()
    assert status == 0, output
    assert spoken(output)[-1] == FIRST_LINE
    return project


def starts_at_once(project: Project) -> None:
    """Assert that nothing is left to do: no pip runs, and the product's first line is the first line."""
    before = project.log
    assert project.make() == (0, FIRST_LINE + "\n")
    assert project.log == before


def test_a_second_run_only_compares_the_stamp(installed: Project) -> None:
    starts_at_once(installed)
    assert (installed.venv / "bin" / "python").resolve() == Path(sys.executable).resolve()


def test_a_deleted_package_is_put_back(installed: Project) -> None:
    shutil.rmtree(installed.site / "iniconfig")
    status, output = installed.make()
    assert status == 0, output
    assert "repairing iniconfig" in output
    assert (installed.site / "iniconfig" / "__init__.py").exists()
    starts_at_once(installed)


def test_an_install_that_never_finished_is_completed(installed: Project) -> None:
    """As a kill in the middle of pip leaves it: no stamp, a package without its record, another cut short."""
    (installed.venv / "finetui-install.json").unlink()
    next(installed.site.glob("setuptools-*.dist-info/RECORD")).unlink()
    (installed.site / "iniconfig" / "__init__.py").write_text("")
    status, output = installed.make()
    assert status == 0, output
    assert "it was left unfinished" in output
    assert (installed.site / "iniconfig" / "__init__.py").read_text() != ""
    starts_at_once(installed)


def test_new_requirements_and_new_metadata_are_installed(installed: Project) -> None:
    with (installed.root / "requirements" / "cpu.txt").open("a") as file:
        file.write("pluggy==1.7.0\n")
    status, output = installed.make()
    assert status == 0, output
    assert "the requirements changed" in output
    assert (installed.site / "pluggy").is_dir()
    text = (installed.root / "pyproject.toml").read_text()
    (installed.root / "pyproject.toml").write_text(text.replace('version = "0"', 'version = "1"'))
    status, output = installed.make()
    assert status == 0, output
    assert "metadata changed" in output
    assert (installed.site / "finetui-1.dist-info").is_dir()
    starts_at_once(installed)


def test_a_dead_interpreter_is_replaced(installed: Project) -> None:
    python = installed.venv / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    status, output = installed.make()
    assert status == 0, output
    assert "its Python is gone" in output
    starts_at_once(installed)


def test_a_folder_that_was_moved_is_installed_anew(installed: Project, tmp_path: Path) -> None:
    moved = Project(tmp_path / "moved", installed.environment)
    shutil.copytree(installed.root, moved.root, symlinks=True)
    status, output = moved.make()
    assert status == 0, output
    assert "the folder was moved" in output
    starts_at_once(moved)


def test_an_interrupted_install_goes_on_once_though_two_want_to(tmp_path: Path) -> None:
    project = create(tmp_path)
    process = project.start()
    give_up = time.monotonic() + 300
    while not (project.venv / "install.log").exists() and time.monotonic() < give_up:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "The same command goes on from here" in output
    assert "Traceback" not in output
    both = [project.start(), project.start()]
    outputs = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert all(spoken(output)[-1] == FIRST_LINE for output in outputs)
    assert project.log.count("--no-build-isolation") == 1
    starts_at_once(project)
