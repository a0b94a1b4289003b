"""Doctor: what on this machine helps or hinders, each finding as soon as it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from ...core.check import Check
from ..theme import glyphs
from ..widgets.footer import Footer
from ..widgets.header import Header
from ..widgets.preview import wrapped
from ..widgets.text import literal
from .closing import while_standing

if TYPE_CHECKING:
    from ..app import FinetuiApp


class DoctorScreen(Screen[None]):
    """The checks in a column: a mark, what was looked at, what was found, and how to mend it."""

    CSS_PATH = "doctor.tcss"
    AUTO_FOCUS = "#doctor"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "again", "Check again", id="doctor.again"),
        Binding("o", "online", "Ask the hub", id="doctor.online", tooltip="Check again, the hub included"),
        Binding("escape", "close", "Back", id="doctor.back"),
    ]

    def compose(self) -> ComposeResult:
        yield Header()
        with VerticalScroll(id="doctor"):
            yield Static(id="checks", markup=False)
        yield Footer(first=("doctor.again", "doctor.online", "doctor.back"))

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    def on_mount(self) -> None:
        header = self.query_one(Header)
        header.show_place("Doctor")
        header.show_machine(self.finetui.looking.machine_line())
        self._checks: tuple[Check, ...] = ()
        self._busy = False
        self._look(online=False)

    def _look(self, online: bool) -> None:
        self._busy = True
        self._paint()

        def work() -> tuple[Check, ...]:
            from ...core import doctor

            return tuple(doctor.checks(online))

        self.finetui.in_background("doctor", work, self._found)

    @while_standing
    def _found(self, checks: tuple[Check, ...]) -> None:
        self._checks, self._busy = checks, False
        self._paint()

    def on_resize(self, event: events.Resize) -> None:
        self._paint()

    @while_standing
    def _paint(self) -> None:
        marks = glyphs()
        look = {
            "ok": (marks.check, "$success"),
            "warn": (marks.warn, "$warning"),
            "bad": (marks.cross, "$error"),
        }
        width = max(20, self.query_one("#doctor").content_size.width - 1)
        names = max((len(check.name) for check in self._checks), default=10) + 2 if width >= 60 else 0
        bad = sum(check.status == "bad" for check in self._checks)
        warn = sum(check.status == "warn" for check in self._checks)
        if not self._checks or self._busy:
            verdict = Content.assemble(
                (f"{marks.todo} Looking at this machine {marks.ellipsis}", "$text-muted")
            )
        elif bad:
            verdict = Content.assemble((f"{marks.cross} {bad} to mend before training", "bold $text-error"))
        elif warn:
            verdict = Content.assemble(
                (f"{marks.check} Ready to train", "bold $success"), f", with {warn} to look at"
            )
        else:
            verdict = Content.assemble((f"{marks.check} Ready to train", "bold $success"))
        lines = [verdict, Content("")]
        for check in self._checks:
            mark, style = look[check.status]
            name = literal(check.name, 40)
            head = Content.assemble(
                (f"{mark} ", f"bold {style}"), (name.ljust(names), "bold" if not names else "")
            )
            texts = [(check.detail, "$text-muted" if check.status == "ok" else "$foreground")]
            if check.fix and check.status != "ok":
                texts.append((f"{marks.right} {check.fix}", "$accent"))
            first = True
            if not names:
                lines.append(head)
                first = False
            for text, text_style in texts:
                for row in wrapped(literal(text, 600), width - names - 3):
                    lines.append(Content.assemble(head if first else " " * (names + 2), (row, text_style)))
                    first = False
        self.query_one("#checks", Static).update(Content("\n").join(lines))

    def action_again(self) -> None:
        self._look(online=False)

    def action_online(self) -> None:
        self._look(online=True)

    def action_close(self) -> None:
        self.app.pop_screen()
