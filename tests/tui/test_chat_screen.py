"""The talk in the wizard, with a real child and the tiny model."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Markdown, TextArea

from finetui.core.talk import Reply, Sampling
from finetui.tui.app import FinetuiApp
from finetui.tui.modals.card import ErrorCard
from finetui.tui.modals.correct import CorrectModal
from finetui.tui.screens.blind import BlindScreen
from finetui.tui.screens.chat import ChatScreen
from finetui.tui.screens.run import RunScreen
from finetui.tui.widgets.chat import Answer

from .driving import SIZES, press, seen, until
from .talked import run, tiny_model, tuned

__all__ = ["run", "tiny_model", "tuned"]

HOSTILE = "\x1b]52;c;aGk=\x07\x1b[31mred [bold]x[/] [@click=app.quit]go[/] <script>s</script> [a](http://x.y) **fat** \u202e"


@asynccontextmanager
async def chatting(
    run: Path, size: tuple[int, int]
) -> AsyncIterator[tuple[FinetuiApp, Pilot[Any], ChatScreen]]:
    app = FinetuiApp(attach=run)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(app.screen, RunScreen) and app.screen.caught_up, "for the run")
        await press(pilot, "t")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen), "for the talk")
        screen = app.screen
        assert isinstance(screen, ChatScreen)
        screen.sampling = Sampling(max_new_tokens=12)
        await until(pilot, lambda: screen.ready, "for the model")
        yield app, pilot, screen


def _pid(screen: ChatScreen) -> int:
    assert screen.talker is not None and screen.talker.pid is not None
    return screen.talker.pid


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "120x36"])
async def test_a_talk_from_question_to_correction(run: Path, size: tuple[int, int]) -> None:
    async with chatting(run, size) as (app, pilot, screen):
        await press(pilot, *"which?", "enter")
        await until(
            pilot, lambda: screen.talk.exchanges and len(screen.talk.exchanges[0].replies) == 2, "for answers"
        )
        text = seen(app)
        assert "You  which?" in text and "12 tokens" in text and "Tuned" in text and "Base" in text
        assert screen.talk.exchanges[0].replies["base"].ids != screen.talk.exchanges[0].replies["tuned"].ids
        assert ("Tab turns" in text) == (size[0] < 100)
        await press(pilot, "f2")
        await until(
            pilot, lambda: len(screen.talk.exchanges) == 2 and len(screen.talk.exchanges[1].replies) == 2
        )
        assert screen.talk.messages("tuned") == (("system", "One word."), ("user", "Item 1: which colour?"))
        assert screen.talk.exchanges[1].expected == "blue 1"
        await until(pilot, lambda: "(expected: 6)" in seen(app), "for the score beside the dataset's answer")
        if size[0] > 100:
            await press(pilot, "f3")
            await until(pilot, lambda: screen.ready, "for another answer")
            await press(pilot, "f4")
            assert app.focused is not None and getattr(app.focused, "text", "") == "Item 1: which colour?"
            await press(pilot, "f9")
            await until(pilot, lambda: list((run / "talks").glob("*.jsonl")), "for the saved talk")
            await press(pilot, "f8")
            assert isinstance(app.screen, CorrectModal)
            app.screen.query_one(TextArea).text = "blue"
            os.kill(_pid(screen), signal.SIGKILL)  # while the row is kept
            await press(pilot, "f8")
            await until(pilot, lambda: isinstance(app.screen, ErrorCard), "for the card")
            await press(pilot, "escape")
            if isinstance(app.screen, CorrectModal):  # the card came first
                await press(pilot, "f8")
            file = Path("tiny-corrections.jsonl")
            await until(pilot, lambda: file.exists() and file.read_bytes().endswith(b"\n"), "for the row")
            assert json.loads(file.read_text())["messages"][-1] == {"role": "assistant", "content": "blue"}
            return
        await press(pilot, "f8")
        assert isinstance(app.screen, CorrectModal)
        app.screen.query_one(TextArea).text = "blue"
        await press(pilot, "f8")
        file = Path("tiny-corrections.jsonl")
        await until(pilot, lambda: file.exists() and file.stat().st_size, "for the row")
        assert json.loads(file.read_text())["messages"][-1] == {"role": "assistant", "content": "blue"}
        whole = file.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for key in ("f8", "f9"):  # a disk that takes half of the row, and nothing of the talk
            await press(pilot, key)
            if key == "f8":
                assert isinstance(app.screen, CorrectModal)
                app.screen.query_one(TextArea).text = "green " * 2000
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 5000 if key == "f8" else 0, hard))
            try:
                if key == "f8":
                    await press(pilot, "f8")
                else:
                    screen.action_save()
                await until(pilot, lambda: isinstance(app.screen, ErrorCard), "for the card")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert "It could not be written." in seen(app)
            await press(pilot, "escape")
            assert file.read_bytes() == whole
        await press(pilot, "f10")
        blind = app.screen
        assert isinstance(blind, BlindScreen)
        for key in ("1", "0"):
            await until(pilot, lambda: blind.ready, "for both answers")
            assert "tuned" not in seen(app).lower() and "base" not in seen(app).lower()
            await press(pilot, key)
        await until(pilot, lambda: blind.kept, "for the tally")
        assert sum(blind.tally().values()) == 2 and blind.tally()["tie"] == 1
        [kept] = (run / "talks").glob("blind-*.jsonl")
        assert [json.loads(line)["better"] for line in kept.read_text().splitlines()][1] == "tie"
        pid = _pid(screen)
        await press(pilot, "escape", "escape")
        await until(pilot, lambda: isinstance(app.screen, RunScreen), "for the run")
        await until(
            pilot,
            lambda: (
                not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes()
            ),
        )


async def test_a_hostile_answer_is_only_text() -> None:
    app = FinetuiApp()
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: app.screen.query("#menu"))
        answer = Answer()
        await app.screen.mount(answer)
        answer.grow(HOSTILE)
        await pilot.pause()
        answer.finish(Reply(HOSTILE, 9, 1.0, 0.1, "length"))
        await until(pilot, lambda: answer.query(Markdown) and "fat" in seen(app))
        text = seen(app)
        assert "\x1b" not in text and "\u202e" not in text and "[bold]x[/]" in text and "<script>" in text
        opened: list[str] = []
        app.open_url = lambda url, **_: opened.append(url)  # type: ignore[method-assign, assignment]
        for y in range(36):
            for x in range(0, 120, 3):
                if app.screen.get_style_at(x, y).meta.get("@click"):
                    await pilot.click(offset=(x, y))
        assert not opened and app.is_running
