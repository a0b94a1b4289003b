"""Files made by hand to be nasty, each opened by the command and in the wizard: both must tell the truth of the table.

A case is a file, the truth about it in words, and that truth as figures. The ledger is told with its counts, the lines of the
rows left out, its worst finding and whether the gate is open; a file that cannot be read is told with the card.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from finetui.core.draft import pairs_text
from finetui.core.recipe import Recipe
from finetui.core.text import counted
from finetui.tui.app import FinetuiApp
from finetui.tui.modals.card import ErrorCard
from finetui.tui.screens.dataset import DatasetScreen
from finetui.tui.screens.ledger import LedgerScreen
from finetui.tui.screens.rows import RowsScreen
from tests.tui import nasty
from tests.tui.driving import at_step, press, seen, type_over, until, wizard
from tests.tui.nasty_cases import BY_NAME, CASES, TOOL_TEMPLATE, Case
from tests.worker import tiny

GROUPS = 4
"""A wizard is started once for every fourth file."""


_HOSTILE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def squeezed(text: str) -> str:
    """Without any white space: a line may be broken anywhere."""
    return re.sub(r"[\s│┃▌▐✗]", "", text)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    plain = tiny.make(tmp_path_factory.mktemp("plain"))
    tools = tiny.make(tmp_path_factory.mktemp("tools"), TOOL_TEMPLATE)
    return {"plain": plain, "tools": tools, "held": plain, "mix": plain}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every file, made once."""
    made: dict[str, Path] = {}
    for case in CASES:
        made[case.name] = case.build(tmp_path_factory.mktemp(case.name[:20]))
    return made


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINETUI_NO_WARM", "1")
    yield tmp_path


def run_command(case: Case, path: Path, model: Path) -> tuple[int, str]:
    """The exit code and the output of `finetui inspect --json`. It is killed, with all that it started, when it hangs."""
    settings = {
        "model.max_length": case.max_length,
        **{f"dataset.{k}": v for k, v in case.changes(path.parent).items()},
    }
    given = [
        part
        for k, v in settings.items()
        for part in ("--set", f"{k}={pairs_text(v) if isinstance(v, dict) else v}")
    ]
    command = [
        sys.executable,
        "-m",
        "finetui.tui",
        "inspect",
        str(path),
        "--model",
        str(model),
        "--json",
        "--rows",
        "3",
        *given,
    ]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in out + errors and not _HOSTILE.search(errors), errors
    assert out.isascii() and not _HOSTILE.search(out)
    return process.returncode, out


@pytest.fixture(scope="module")
def answers(places: dict[str, Path], models: dict[str, Path]) -> Iterator[dict[str, Future[tuple[int, str]]]]:
    """What the command says of every file; two of them run at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield {
            case.name: pool.submit(run_command, case, places[case.name], models[case.model]) for case in CASES
        }


@pytest.mark.parametrize("name", BY_NAME)
def test_the_command_tells_the_truth(name: str, answers: dict[str, Future[tuple[int, str]]]) -> None:
    case = BY_NAME[name]
    code, out = answers[name].result()
    told = json.loads(out)
    if case.card:
        assert told["error"]["code"] == case.card, told
        assert code == (4 if case.card == "dataset-missing" else 9)
        said = " ".join(str(told["error"][part]) for part in ("what", "why", "fix"))
        assert told["error"]["what"] and told["error"]["why"] and told["error"]["fix"], case.truth
        assert not [words for words in case.says if words not in said], said
        return
    ledger = told["ledger"]
    assert told["format"]["name"] == case.format, told["format"]
    assert (ledger["read"], ledger["kept"], ledger["dropped_rows"]) == (
        case.read,
        case.kept,
        case.read - case.kept,
    ), case.truth
    assert ledger["kept"] == ledger["train_rows"] + ledger["evaluation_rows"]
    assert len(ledger["dropped"]) == len(case.dropped), ledger["dropped"]
    for entry in ledger["dropped"]:
        lines = [at for reason, at in case.dropped.items() if entry["reason"].startswith(reason)]
        assert lines and (not lines[0] or tuple(entry["lines"]) == lines[0]), entry
    assert tuple(found["code"] for found in told["findings"]) == case.findings, case.truth
    worst = [found["severity"] for found in told["findings"]][:1]
    verdict = {"stop": ("unusable", 9), "warning": ("warnings", 8)}.get(
        worst[0] if worst else "", ("clean", 0)
    )
    assert (told["verdict"], code) == verdict and (verdict[1] == 9) == bool(case.gate)
    said = json.dumps([told["format"], told["findings"]], ensure_ascii=False)
    assert not [words for words in case.says if words not in said], said
    shown = "".join(span["text"] for row in told["rows"] for span in row["spans"])
    assert not [words for words in case.rows if words not in shown], shown
    assert "sk-" not in said and "hf_a" not in said and "jane" not in said


def recipe_of(case: Case, path: Path, model: Path) -> Recipe:
    plain = Recipe()
    return Recipe(
        model=plain.model.model_copy(update={"source": str(model), "max_length": case.max_length}),
        dataset=plain.dataset.model_copy(update={"source": str(path), **case.changes(path.parent)}),
    )


async def opened(app: FinetuiApp, pilot: Pilot[Any], case: Case, path: Path, model: Path) -> None:
    """The dataset step with `path`, once it knows all that it will ever know."""
    recipe = recipe_of(case, path, model)
    changed = bool(app.wizard.value("dataset.mix") or app.wizard.value("dataset.evaluation_source")) or (
        app.wizard.value("model.source") != str(model)
    )
    if getattr(app.screen, "step", "") == "dataset" and case.model == "plain" and not changed:
        screen = app.screen
        assert isinstance(screen, DatasetScreen)
        screen.query_one(f"#source-{screen.picker.kind} TextControl").focus()
        await pilot.pause()
        await type_over(pilot, str(path))
    else:
        app.go_home()
        await pilot.pause()
        app.begin(recipe, step="dataset")
        await at_step(app, pilot, "dataset")
    known = app.wizard
    await until(pilot, lambda: str(known.value("dataset.source")) == str(path), "for the choice")
    await until(
        pilot,
        lambda: (
            not known.dataset_busy
            and (known.dataset_error is not None or known.inspection.state in ("done", "failed"))
        ),
        "for the truth",
    )
    await pilot.pause()


async def check(app: FinetuiApp, pilot: Pilot[Any], case: Case) -> None:
    """What the dataset step, the ledger and the way on say of `case`."""
    error, inspection = app.wizard.dataset_error, app.wizard.inspection
    if error is not None or case.card:
        assert error is not None and error.code in (case.card, "dataset-format"), (error, inspection)
        await shows(app, pilot, error.what)
        if case.card:
            said = f"{error.what} {error.why} {error.fix}"
            assert error.why and error.fix and not [words for words in case.says if words not in said], said
        else:  # the look already finds that no row can be used; the command counts them all
            assert case.gate == "no-usable-rows" and all(reason in error.why for reason in case.dropped), (
                error
            )
        await stopped(app, pilot)
        return
    ledger, gate = inspection.complete, inspection.gate
    assert ledger is not None, inspection.error
    assert (ledger.format, ledger.read, ledger.kept) == (case.format, case.read, case.kept), case.truth
    assert tuple(found.code for found in ledger.findings) == case.findings, case.truth
    assert (gate.code if gate is not None else "") == (f"gate-{case.gate}" if case.gate else "")
    if ledger.train_rows or case.gate != "no-usable-rows":
        await shows(app, pilot, f"{counted(ledger.train_rows, 'row')} to learn from")
    worst = [found.sentence for found in ledger.findings if found.severity != "note"]
    await shows(app, pilot, worst[0][:40] if worst else "Nothing to mend")
    if case.gate or len(worst) > 1 or case.look:
        await press(pilot, "f4")
        await until(pilot, lambda: isinstance(app.screen, LedgerScreen), "for the ledger")
        left_out = case.read - case.kept
        await shows(
            app,
            pilot,
            f"{counted(case.read, 'row')} read = {case.kept:,} kept + {left_out:,} dropped",
            *worst[:1],
        )
        await press(pilot, "escape")
        await at_step(app, pilot, "dataset")
    if case.look:
        await press(pilot, "f3")
        await until(pilot, lambda: isinstance(app.screen, RowsScreen), "for the rows")
        await shows(app, pilot, case.look)
        await press(pilot, "escape")
        await at_step(app, pilot, "dataset")
    if gate is not None:
        await stopped(app, pilot)
    else:
        assert app.wizard.trouble("dataset") is None


def clean(app: FinetuiApp) -> None:
    assert not _HOSTILE.search(seen(app)) and "Traceback" not in seen(app), seen(app)


async def shows(app: FinetuiApp, pilot: Pilot[Any], *words: str) -> None:
    """Waits for `words` on the screen, wherever its lines are broken; nothing hostile stands there."""
    for text in words:
        await until(pilot, lambda text=text: squeezed(text)[:60] in squeezed(seen(app)), f"for {text}")
    clean(app)


async def stopped(app: FinetuiApp, pilot: Pilot[Any]) -> None:
    """The way on is shut, with a card that says why."""
    await press(pilot, "ctrl+n")
    await until(pilot, lambda: isinstance(app.screen, ErrorCard), "for the card")
    clean(app)
    await press(pilot, "escape")
    await at_step(app, pilot, "dataset")


@pytest.mark.parametrize("group", range(GROUPS))
async def test_the_screen_tells_the_truth(
    group: int, places: dict[str, Path], models: dict[str, Path]
) -> None:
    async with wizard((80, 24)) as (app, pilot):
        for case in CASES[group::GROUPS]:
            await opened(app, pilot, case, places[case.name], models[case.model])
            try:
                await check(app, pilot, case)
            except AssertionError as error:
                raise AssertionError(f"{case.name}: {case.truth}\n{error}\n{seen(app)}") from error


async def test_files_that_change_while_they_are_read(home: Path, models: dict[str, Path]) -> None:
    """One grows, one is cut short, one vanishes in the middle, one between the look and the reading. The account adds up for
    each, or a card says what happened; what was read can be looked at."""
    rows = "".join(json.dumps(nasty.chat(f"question {n}", f"answer {n}")) + "\n" for n in range(30_000))
    async with wizard((80, 24)) as (app, pilot):
        for change in ("grows", "is cut", "vanishes", "is gone"):
            path = home / f"{change}.jsonl"
            path.write_text(rows)
            case = Case(nasty.blank, change)
            app.go_home()
            await pilot.pause()
            app.begin(recipe_of(case, path, models["plain"]), step="dataset")
            await at_step(app, pilot, "dataset")
            state = ("waiting", "reading", "done") if change == "is gone" else ("reading", "done")
            await until(
                pilot, lambda state=state: app.wizard.inspection.state in state, f"for a file that {change}"
            )
            if change == "grows":
                with path.open("a") as more:
                    more.write(rows[:100_000])
            elif change == "is cut":
                os.truncate(path, 200_000)
            else:
                path.unlink()
            await until(pilot, lambda: app.wizard.inspection.state in ("done", "failed"), "for the end")
            inspection = app.wizard.inspection
            if inspection.error is not None:
                assert change == "is gone" and inspection.error.code == "dataset-missing", inspection.error
                await shows(app, pilot, inspection.error.what)
                continue
            ledger = inspection.complete
            assert ledger is not None and ledger.read == ledger.kept + ledger.dropped_rows
            assert ledger.read <= 30_000 or change == "grows"
            assert ledger.dropped_rows <= 1  # the row at which it was cut
            await press(pilot, "f3")
            await until(pilot, lambda: isinstance(app.screen, RowsScreen), "for the rows")
            await shows(app, pilot, "question 0")
            await press(pilot, "escape")
            await at_step(app, pilot, "dataset")
