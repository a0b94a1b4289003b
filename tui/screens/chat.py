"""The talk with a model: base and tuned side by side from one loaded model."""

from __future__ import annotations

import random
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from ...core import talk_files
from ...core.talk import Exchange, Reply, Sampling, Side, Target
from ..theme import glyphs
from ..widgets.chat import Question
from ..widgets.footer import Footer
from ..widgets.header import Header
from ..widgets.text import literal
from .closing import while_standing
from .talking import TalkingScreen

NAMES: dict[Side, str] = {"base": "Base", "tuned": "Tuned"}


class ChatScreen(TalkingScreen):
    """The talk with `target`: one side beside the other, or in turn where one fits."""

    CSS_PATH = ["chat.tcss"]
    AUTO_FOCUS = "#question"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "held", "Held-out", id="chat.held", tooltip="Ask the next prompt that it was never trained on"),
        Binding("f3", "again", "Again", id="chat.again", tooltip="Another answer to the last question"),
        Binding("f4", "edit", "Edit", show=False, id="chat.edit", tooltip="Change the last question"),
        Binding("f5", "settings", "Settings", id="chat.settings", tooltip="System prompt, temperature and the like"),
        Binding("f8", "keep", "Correct", show=False, id="chat.keep", tooltip="Correct the last answer, and add it to a dataset"),
        Binding("f9", "save", "Save", show=False, id="chat.save", tooltip="Keep the talk as JSONL and Markdown"),
        Binding("f10", "blind", "Blind A/B", show=False, id="chat.blind", tooltip="Judge answers without knowing whose they are"),
        Binding("f11", "copy", "Copy", show=False, id="chat.copy", tooltip="The last answer, to the clipboard"),
        Binding("f12", "new", "New talk", show=False, id="chat.new", tooltip="Forget what was said"),
        Binding("tab", "turn", "Other side", show=False, priority=True, id="chat.turn", tooltip="Base or tuned, where one fits"),
        Binding("pageup", "page(-1)", "Scroll up", show=False, priority=True, id="chat.pageup"),
        Binding("pagedown", "page(1)", "Scroll down", show=False, priority=True, id="chat.pagedown"),
        Binding("escape", "back", "Stop, or back", id="chat.back", priority=True, tooltip="Ends the answer; then leaves the talk"),
    ]  # fmt: skip

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self.front: Side = "tuned"
        self._held_at = 0
        self._keep_in: Path | None = None

    def compose(self) -> ComposeResult:
        yield Header()
        yield Static(id="chat-tabs", markup=False)
        with Horizontal(id="chat-body"):
            for side in self.target.sides:
                with Vertical(id=f"side-{side}", classes="chat-side"):
                    yield Static(id=f"head-{side}", classes="chat-head", markup=False)
                    yield VerticalScroll(id=f"pane-{side}", classes="chat-pane", can_focus=False)
        yield Static(id="chat-alert", markup=False)
        yield Question(id="question")
        yield Footer(first=("chat.held", "chat.again", "chat.settings", "chat.back"))

    # ── The question ──

    @on(Question.Asked)
    def _asked(self, event: Question.Asked) -> None:
        event.stop()
        if not self.ready:
            self.app.bell()
            self.say("Wait until it has answered." if self._writing else "It is still being loaded.")
            return
        self.query_one(Question).clear()
        self.ask(Exchange(event.text, self.system, fresh=self._fresh or not self.talk.exchanges))

    # ── Looks ──

    @property
    def beside(self) -> bool:
        """Whether both sides have room."""
        return self.size.width >= 100 or len(self.target.sides) == 1

    def on_resize(self) -> None:
        self.paint()

    @while_standing
    def paint(self) -> None:
        header = self.query_one(Header)
        header.show_place(self.target.title, "chat")
        now = self.talker.loading() if self.talker is not None else None
        if now is None or (not now.ready and now.error is None):
            header.show_status("loading", "paused")
        elif now.error is not None:
            header.show_status("ended", "bad")
        else:
            header.show_status("writing" if self._writing else "ready", "busy" if self._writing else "calm")
        header.show_figures(now.device if now is not None and now.ready else "")
        tabs = self.query_one("#chat-tabs", Static)
        tabs.display = not self.beside
        parts: list[tuple[str, str]] = []
        for side in self.target.sides:
            self.query_one(f"#side-{side}").display = self.beside or side == self.front
            self.query_one(f"#head-{side}", Static).update(self._head(side))
            self.query_one(f"#head-{side}").display = self.beside
            mark = glyphs().dot if side == self.front else glyphs().todo
            speed = self._speed(side) if side == self.front else ""
            words = f" {mark} {NAMES[side]}{speed}  "
            parts.append((words, "bold $accent" if side == self.front else "$text-muted"))
        tabs.update(Content.assemble(*parts, ("Tab turns", "$text-disabled")))
        self.query_one("#chat-alert", Static).update(self._alert())

    def _head(self, side: Side) -> Content:
        name = NAMES[side] if len(self.target.sides) > 1 else literal(self.target.title, 60)
        return Content.assemble(
            (name, "bold $accent" if side == "tuned" else "bold"), (self._speed(side), "$text-muted")
        )

    def _speed(self, side: Side) -> str:
        writing = self._writing.get(side)
        reply = writing.now() if writing is not None else None
        if reply is None and self.talk.exchanges:
            reply = self.talk.exchanges[-1].replies.get(side)
        if reply is None:
            return ""
        if writing is not None and not reply.text:
            return f"  {glyphs().middot} thinking" if writing.first is None else ""
        return f"  {glyphs().middot} {reply.tokens:,} tokens, {reply.tokens_per_second:.0f} a second"

    def _alert(self) -> Content:
        now = self.talker.loading() if self.talker is not None else None
        if self._message:
            return Content.assemble((literal(self._message, 300), "$accent"))
        if now is None or not now.ready:
            if now is not None and now.error is not None:
                return Content.assemble((literal(now.error.what, 200), "bold $text-error"))
            words = now.words if now is not None else "looking at the machine"
            return Content.assemble((f"{words.capitalize()} {glyphs().ellipsis}", "$text-muted"))
        if now.plain:
            return Content.assemble(
                ("It knows no conversations: it goes on with the text that you give it.", "$text-muted")
            )
        dot = f" {glyphs().middot} "
        step = f"Checkpoint of step {now.step:,}. " if now.step is not None else ""
        return Content.assemble(
            (
                f"{step}F4 edit{dot}F8 correct{dot}F9 save{dot}F10 blind A/B{dot}F11 copy{dot}F12 new talk",
                "$text-muted",
            )
        )

    # ── Actions ──

    def action_held(self) -> None:
        if not self.held or not self.ready:
            self.say("There are no held-out prompts here." if not self.held else "Wait until it can answer.")
            return
        prompt = self.held[self._held_at % len(self.held)]
        self._held_at += 1
        before = prompt.messages[1 if prompt.system else 0 : -1]
        self.ask(Exchange(prompt.question, prompt.system, before, True, prompt.expected))

    def action_again(self) -> None:
        if not self.talk.exchanges or not self.ready:
            self.app.bell()
            return
        for side in self.target.sides:
            if side in self._answers:
                self._answers[side].remove()
        warm = self.sampling.temperature > 0
        self.answer(self.sampling if warm else self.sampling.model_copy(update={"temperature": 0.7}))
        if not warm:
            self.say("At temperature 0 it would be the same again; this one is at 0.7.")

    def action_edit(self) -> None:
        if not self.talk.exchanges or self._writing:
            self.app.bell()
            return
        last = self.talk.exchanges.pop()
        self._fresh = last.fresh
        for side in self.target.sides:
            for widget in list(self.query_one(f"#pane-{side}", VerticalScroll).children)[-2:]:
                widget.remove()
        question = self.query_one(Question)
        question.text = last.question
        question.focus()
        self.paint()

    def action_new(self) -> None:
        self._fresh = True
        self.say("A new talk: nothing that was said is seen any more.")

    def action_settings(self) -> None:
        from ..modals.talk_settings import TalkSettings

        def answered(answer: tuple[str, Sampling] | None) -> None:
            if answer is not None:
                self._fresh = self._fresh or answer[0] != self.system
                self.system, self.sampling = answer
                self.paint()

        self.app.push_screen(TalkSettings(self.system, self.sampling), answered)

    def _last(self) -> tuple[Side, Reply] | None:
        side: Side = self.front if self.front in self.target.sides else "tuned"
        reply = self.talk.exchanges[-1].replies.get(side) if self.talk.exchanges else None
        return (side, reply) if reply is not None and not self._writing else None

    def action_copy(self) -> None:
        last = self._last()
        if last is None:
            self.app.bell()
            return
        self.app.copy_to_clipboard(last[1].text)
        self.say(f"The {last[0]} answer is in the clipboard.")

    def action_save(self) -> None:
        if not self.talk.exchanges or self._writing:
            self.app.bell()
            return
        self.finetui.in_background(
            "talk save",
            lambda: talk_files.save(self.target, self.talk),
            lambda files: self.say(f"Kept as {files[0].name} and {files[1].name} in {files[0].parent}"),
        )

    def action_keep(self) -> None:
        from ..modals.correct import CorrectModal

        last = self._last()
        if last is None:
            self.app.bell()
            return
        messages = self.talk.messages(last[0])
        name = self.target.title.partition(",")[0].replace("/", "-") or "talk"
        file = self._keep_in or Path.cwd() / f"{name}-corrections.jsonl"

        def answered(answer: tuple[str, Path] | None) -> None:
            if answer is None:
                return
            text, self._keep_in = answer
            place = answer[1]
            self.finetui.in_background(
                "talk keep",
                lambda: talk_files.append(place, (*messages, ("assistant", text))),
                lambda line: self.say(f"Added as line {line:,} of {place}"),
            )

        self.app.push_screen(CorrectModal(messages[-1][1], last[1].text, file), answered)

    def action_blind(self) -> None:
        from .blind import BlindScreen

        if self.talker is None or not self.ready or len(self.target.sides) < 2 or not self.held:
            self.say("A blind test needs base and tuned, both loaded, and held-out prompts.")
            return
        self.app.push_screen(BlindScreen(self.talker, self.held, random.SystemRandom()))

    def action_turn(self) -> None:
        sides = self.target.sides
        self.front = sides[(sides.index(self.front) + 1) % len(sides)]
        self.paint()

    def action_page(self, by: int) -> None:
        for side in self.target.sides:
            pane = self.query_one(f"#pane-{side}", VerticalScroll)
            (pane.scroll_page_down if by > 0 else pane.scroll_page_up)(animate=False)

    def action_back(self) -> None:
        if self._writing and self.talker is not None:
            self.talker.stop()
            self.say("Stopped.")
        else:
            self.dismiss(None)

    def explain_content(self) -> Content:
        """What this is, for the help."""
        return Content.assemble(
            ("Trying it\n", "bold $accent"),
            "Both sides are one loaded model: base is the same with the adapter switched off; after full fine-tuning it is a "
            "second model. Enter asks, Ctrl+N breaks the line. At temperature 0 each answer is the likeliest one, and the same "
            "each time.",
        )
