"""Another user of the machine: nothing of a run, a draft or a talk can be reached by anybody but its owner."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetui.core import paths, presets, presets_own, recipe_file, talk_files
from finetui.core.draft import Draft
from finetui.core.recipe import Recipe
from finetui.core.runs import care, launch, lineage, manifest, queue, store
from finetui.core.runs.events import Warned
from finetui.core.talk import Exchange, Reply, Talk, Target
from finetui.core.worker.events import EventWriter

NOBODY = 65534


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that was made by its owner and is open to all, under a careless umask."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("FINETUI_HOME", str(Path(folder) / "home"))
        before = os.umask(0)
        (Path(folder) / "home").mkdir(mode=0o777)
        try:
            yield Path(folder) / "home"
        finally:
            os.umask(before)


def filled() -> None:
    """All that finetui writes by itself."""
    run = store.create("mine")
    recipe_file.save(Recipe(name="mine"), run.recipe)
    launch.spawn(
        [], run.log, run.path
    ).wait()  # a worker that is told nothing writes how it is used, and ends
    manifest.write(run, manifest.Manifest("train", 1, 1.0, "here", 1.0))
    EventWriter(run.events).emit(Warned("a", "b"))
    store.paths.private_dir(run.control)
    care.label(run, note="mine")
    lineage.sign(run, lineage.Origin("another", "copy"))
    with queue.changing() as places:
        places.append(queue.Place(str(run.path)))
    queue.use("cpu")
    Draft(Recipe(name="mine")).save()
    presets_own.save(presets.of_recipe("mine", "why", Recipe(), own=True))
    talk = Talk()
    talk.exchanges.append(Exchange("Which?", replies={"tuned": Reply("Red.")}))
    talk_files.save(Target("adapter", run.adapter, "a run", run.path), talk)
    talk_files.Rows(Target("adapter", run.adapter, "a run", run.path), "eval").close()
    talk_files.append(paths.data() / "rows.jsonl", (("user", "a"), ("assistant", "b")))


def test_folders_are_0700_and_files_0600_whatever_the_umask(home: Path) -> None:
    filled()
    found = list(home.rglob("*"))
    assert len([p for p in found if p.is_file()]) >= 14
    assert not {
        str(p.relative_to(home)): oct(p.stat().st_mode)
        for p in found
        if stat.S_IMODE(p.stat().st_mode) != (0o700 if p.is_dir() else 0o600)
    }


@pytest.mark.parametrize("how", [os.O_RDONLY, os.O_WRONLY])
def test_another_user_opens_nothing(home: Path, how: int) -> None:
    """As another user where this process may become one (root), else by the modes alone."""
    filled()
    files = [p for p in home.rglob("*") if p.is_file()]
    if os.geteuid() != 0:
        assert all(p.stat().st_mode & 0o077 == 0 for p in files)
        return
    pid = os.fork()
    if pid == 0:
        opened = 0
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        for path in [*files, *(p.parent for p in files)]:
            try:
                os.close(os.open(path, how if path in files else os.O_RDONLY))
                opened += 1
                print("opened", path, file=sys.stderr, flush=True)
            except PermissionError:
                pass
        os._exit(min(opened, 100))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
