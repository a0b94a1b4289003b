"""A blind test: both answers to each held-out prompt in random order, without names; the person judges, the tally tells."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from ...core import talk_files
from ...core.talk import HeldOut, Sampling, Side
from ...core.talking import Talker, Writing
from ...core.text import clean
from ..theme import glyphs
from ..widgets.footer import Footer
from ..widgets.header import Header
from ..widgets.text import literal
from .closing import while_standing

if TYPE_CHECKING:
    from ..app import FinetuiApp

POLL_SECONDS = 0.15


class BlindScreen(Screen[None]):
    """Asks both sides each of `prompts`, greedily, and takes a judgement on each. Nothing tells whose an answer is before
    the end."""

    CSS_PATH = ["blind.tcss"]
    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "judge(0)", "Left is better", id="blind.left"),
        Binding("2", "judge(1)", "Right is better", id="blind.right"),
        Binding("0", "judge(-1)", "Tie", id="blind.tie"),
        Binding("escape", "back", "Leave", id="blind.back", tooltip="Ends the test; what was judged is kept"),
    ]

    def __init__(self, talker: Talker, prompts: tuple[HeldOut, ...], chance: Random) -> None:
        super().__init__()
        self.talker, self.prompts = talker, prompts
        self.orders: list[tuple[Side, Side]] = [
            ("base", "tuned") if chance.random() < 0.5 else ("tuned", "base") for _ in prompts
        ]
        self.judged: list[Side | None] = []
        self.kept = ""
        self._writings: list[dict[Side, Writing]] = []
        self._shown = ("", -1)

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    @property
    def over(self) -> bool:
        return len(self.judged) == len(self.prompts)

    def compose(self) -> ComposeResult:
        yield Header()
        with VerticalScroll(id="blind-top", can_focus=False):
            yield Static(id="blind-question", markup=False)
        with Horizontal(id="blind-body"):
            for number in ("1", "2"):
                with VerticalScroll(classes="blind-side", can_focus=False):
                    yield Static(id=f"blind-{number}", markup=False)
        yield Footer(first=("blind.left", "blind.right", "blind.tie", "blind.back"))

    def on_mount(self) -> None:
        self._ask_ahead()
        self.set_interval(POLL_SECONDS, self._paint)
        self._paint()

    def _ask_ahead(self) -> None:
        """The prompt at hand, and the next one while the person reads."""
        greedy = Sampling(max_new_tokens=256)
        while len(self._writings) < min(len(self.prompts), len(self.judged) + 2):
            messages = self.prompts[len(self._writings)].messages
            self._writings.append(
                {side: self.talker.ask(side, messages, greedy) for side in ("tuned", "base")}
            )

    @property
    def ready(self) -> bool:
        """Whether both answers are there to be judged."""
        return not self.over and all(w.over for w in self._writings[len(self.judged)].values())

    @while_standing
    def _paint(self) -> None:
        at = len(self.judged)
        header = self.query_one(Header)
        header.show_place(self.talker.target.title, "blind A/B")
        header.show_figures(f"{min(at + 1, len(self.prompts))} of {len(self.prompts)}")
        state = (f"{self.ready}{self.kept}", at)
        if state == self._shown:
            return
        self._shown = state
        question, left, right = (self.query_one(f"#blind-{n}", Static) for n in ("question", "1", "2"))
        if self.over:
            question.update(self._result())
            left.update("")
            right.update("")
            return
        question.update(Content.assemble(("You  ", "bold $text-muted"), clean(self.prompts[at].question)))
        for number, side, place in zip("12", self.orders[at], (left, right), strict=True):
            words = f"Both answer {glyphs().ellipsis}"
            if self.ready:
                writing = self._writings[at][side]
                words = clean(writing.now().text) or "(nothing)"
                if writing.error is not None:
                    words = literal(writing.error.what)
            place.update(
                Content.assemble(
                    (f"{number}  ", "bold $accent"), words if self.ready else (words, "$text-muted")
                )
            )

    def tally(self) -> dict[str, int]:
        """How often each was better, and ties."""
        return {
            "tuned": self.judged.count("tuned"),
            "base": self.judged.count("base"),
            "tie": self.judged.count(None),
        }

    def _result(self) -> Content:
        tally = self.tally()
        won, lost = tally["tuned"], tally["base"]
        words = (
            "Tuned was better more often."
            if won > lost
            else "Base was better more often."
            if lost > won
            else "Neither won."
        )
        few = "" if len(self.judged) >= 20 else f" {len(self.judged)} prompts are few: take it as a hint."
        return Content.assemble(
            (
                f"Tuned {won} {glyphs().middot} base {lost} {glyphs().middot} tie {tally['tie']}\n",
                "bold $accent",
            ),
            words + few,
            (f"\n{literal(self.kept, 300)}" if self.kept else "", "$text-muted"),
        )

    def action_judge(self, which: int) -> None:
        if not self.ready:
            self.app.bell()
            return
        self.judged.append(self.orders[len(self.judged)][which] if which >= 0 else None)
        if self.over:
            self._keep()
        else:
            self._ask_ahead()
        self._paint()

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                **talk_files.row(prompt.messages),
                **{side: writing.now().text for side, writing in writings.items()},
                "left": order[0],
                "better": better or "tie",
            }
            for prompt, writings, order, better in zip(
                self.prompts, self._writings, self.orders, self.judged, strict=False
            )
        ]

    def _keep(self) -> None:
        def done(file: object) -> None:
            self.kept = f"Kept as {file}"
            self._paint()

        target, rows = self.talker.target, self._rows()
        self.finetui.in_background("blind", lambda: talk_files.keep(target, "blind", rows), done)

    def action_back(self) -> None:
        self.talker.stop()
        if self.judged and not self.over:
            self._keep()
        self.dismiss(None)
