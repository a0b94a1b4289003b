"""The base of the screen that talks with a model: it is loaded, asked, and its answers grow in their panes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from textual.containers import VerticalScroll
from textual.screen import Screen

from ...core.errors import FinetuiError
from ...core.talk import (
    Device,
    Exchange,
    HeldOut,
    Plan,
    Sampling,
    Side,
    Talk,
    Target,
    held_out,
    plan_here,
)
from ...core.talking import Talker, Writing
from ..modals.confirm import ConfirmModal
from ..widgets.chat import Answer, Said
from .closing import while_standing

if TYPE_CHECKING:
    from ..app import FinetuiApp

POLL_SECONDS = 0.15


class TalkingScreen(Screen[None]):
    """Loads `target` in a child process and talks to it. The child ends with the screen.

    A subclass composes a VerticalScroll `pane-SIDE` for each side, and shows the present state in `paint`.
    """

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target
        self.talk = Talk()
        self.system = target.system_prompt
        self.sampling = Sampling()
        self.talker: Talker | None = None
        self.held: tuple[HeldOut, ...] = ()
        self._fresh = False
        self._writing: dict[Side, Writing] = {}
        self._answers: dict[Side, Answer] = {}
        self._message = ""
        self._error: FinetuiError | None = None

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    # ── Loading ──

    def on_mount(self) -> None:
        self.set_interval(POLL_SECONDS, self._poll)
        self.finetui.in_background(
            f"talk plan {id(self)}", lambda: (plan_here(self.target), held_out(self.target)), self._planned
        )
        self.paint()

    @while_standing
    def _planned(self, known: tuple[Plan, tuple[HeldOut, ...]]) -> None:
        plan, self.held = known
        if not plan.why:
            self._load(plan.device)
            return

        def answered(answer: str | None) -> None:
            if answer in ("cpu", "gpu"):
                self._load("cpu" if answer == "cpu" else "gpu")
            else:
                self.dismiss(None)

        answers = [("cpu", "Use the CPU"), ("gpu", "Use the GPU all the same"), ("cancel", "Not now")]
        self.app.push_screen(ConfirmModal("Where should it be loaded?", plan.why, answers), answered)

    def _load(self, device: Device) -> None:
        def started(talker: Talker) -> None:
            if self.is_attached:
                self.talker = talker
            else:
                talker.close()

        self.finetui.in_background(f"talk {id(self)}", lambda: Talker(self.target, device), started)

    def on_unmount(self) -> None:
        if self.talker is not None:
            self.talker.close()

    # ── Answers ──

    @property
    def ready(self) -> bool:
        """Whether a question would be answered at once."""
        return self.talker is not None and self.talker.loading().ready and not self._writing

    def ask(self, exchange: Exchange) -> None:
        """Puts `exchange` to each side, the tuned one first."""
        self._fresh = False
        self.talk.exchanges.append(exchange)
        for side in self.target.sides:
            pane = self.query_one(f"#pane-{side}", VerticalScroll)
            pane.mount(Said(exchange.question, exchange.fresh and len(self.talk.exchanges) > 1))
        self.answer(self.sampling)

    def answer(self, sampling: Sampling) -> None:
        """Lets each side answer the last exchange."""
        talker = self.talker
        if talker is None:
            return
        self._message = ""
        for side in reversed(self.target.sides):
            self._writing[side] = talker.ask(side, self.talk.messages(side), sampling)
            answer = self._answers[side] = Answer()
            pane = self.query_one(f"#pane-{side}", VerticalScroll)
            pane.mount(answer)
            pane.anchor()
        self.paint()

    @while_standing
    def _poll(self) -> None:
        talker = self.talker
        if talker is None:
            return
        error = talker.loading().error
        if error is not None and error is not self._error:
            self._error = error
            self.finetui.show_error(error)
        for side, writing in list(self._writing.items()):
            reply = writing.now()
            if writing.over:
                del self._writing[side]
                if writing.error is not None and writing.error is not self._error:
                    self._error = writing.error
                    self.finetui.show_error(writing.error)
                reply = replace(reply, reason="failed") if writing.error is not None else reply
                self.talk.exchanges[-1].replies[side] = reply
                self._answers[side].finish(reply, self.talk.exchanges[-1].expected)
            elif reply.text:
                self._answers[side].grow(reply.text)
        self.paint()

    # ── Looks ──

    def paint(self) -> None:
        """Shows the present state everywhere."""
        raise NotImplementedError

    def say(self, words: str) -> None:
        """Shows `words` in the alert line."""
        self._message = words
        self.paint()
