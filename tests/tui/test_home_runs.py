"""The runs that Home lists: which of them, under which names, and what it reads of them."""

from __future__ import annotations

import os
import shutil

import pytest

from finetui.core.runs import care, events, summary
from finetui.core.runs.store import RunFolder
from finetui.tui.screens.home import MOST_RUNS, HomeScreen, run_words

from . import recorded
from .command_line import finetui
from .driving import home, press, seen, until, wizard
from .recorded import Recording

__all__ = ["home"]


def ended(steps: int = 20) -> Recording:
    return recorded.new().started().ready().train(1, steps).add(events.Ended("train", "completed", 10_800.0))


async def test_what_is_archived_or_renamed_is_so_on_home() -> None:
    first, second = ended().run, ended().run
    async with wizard((120, 36)) as (app, pilot):
        await until(pilot, lambda: seen(app).count("step 20/74") == 2, "for the runs")
        care.label(first, title="the good one")
        care.label(second, archived=True)
        await until(pilot, lambda: seen(app).count("step 20/74") == 1 and "the good one" in seen(app))


async def test_an_old_run_at_work_is_listed_and_the_newest_beside_it(home: object) -> None:
    worker = recorded.sleeper()
    try:
        old = recorded.new().started(worker.pid).ready().train(1, 9).run
        old.path.rename(old.path.with_name("20200101-000000-old"))
        done = ended().run
        for number in range(MOST_RUNS + 10):
            shutil.copytree(done.path, done.path.with_name(f"{done.id}-{number}"))
        async with wizard((120, 36)) as (app, pilot):
            await until(pilot, lambda: "Running" in seen(app) and "step 9/74" in seen(app), "for the old run")
            screen = app.screen
            assert isinstance(screen, HomeScreen)
            assert sum(item.key.startswith("run:") for item in screen.items()) == MOST_RUNS + 1
    finally:
        worker.kill()
        worker.communicate()


async def test_what_has_not_changed_is_not_read_again() -> None:
    first, second = ended().run, ended().run
    async with wizard((120, 36)) as (app, pilot):
        await until(pilot, lambda: seen(app).count("step 20/74") == 2, "for the runs")
        before = first.events.stat()
        first.events.write_bytes(first.events.read_bytes().replace(b'"step":20,', b'"step":99,'))
        os.utime(first.events, ns=(before.st_atime_ns, before.st_mtime_ns))
        care.label(second, title="renamed")
        await until(pilot, lambda: "renamed" in seen(app), "for another look")
        assert "99/74" not in seen(app)
    for words in ((), ("--sort", "name")):  # nor by a command
        assert "99/74" not in finetui("runs", *words).stdout


@pytest.mark.parametrize("job", ["export", "verify"])
async def test_a_failed_export_leaves_a_completed_run(job: str) -> None:
    recording = ended().started(job=job)
    recording.add(events.Ended(job, "failed", 12.0, "It cannot be exported.", "So.", "Do.", "export-full"))
    (one,) = summary.Summaries().read()
    word = "proof failed" if job == "verify" else "export failed"
    assert (one.state, one.seconds) == ("completed", 10_800.0) and run_words(one).endswith(word)
    listed = finetui("runs").stdout
    assert "completed" in listed and "took 3 h" in listed and f"{word}: It cannot be exported." in listed
    async with wizard((120, 36)) as (app, pilot):
        await until(pilot, lambda: word in seen(app), "for Home")
        app.open_run(RunFolder(summary.folder_of(one)).path)
        await until(pilot, lambda: "It cannot be exported." in seen(app), "for the card")
        assert "completed" in seen(app).partition("\n")[0] and "as a new run" not in seen(app)
        await press(pilot, "f")
        await until(pilot, lambda: "Nothing is trained again" in seen(app), "for the way on")
