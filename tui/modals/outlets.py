"""Where to? A finished export on its way out: to the hub, to Ollama, or to a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from ...core import leaving as exports
from ...core.errors import FinetuiError
from ...core.runs.store import RunFolder
from ...core.text import bytes_words
from ..leaving import PLACES, Hub, Place, Planned, Standing, Work
from ..screens.closing import while_standing
from ..theme import glyphs
from ..widgets.bars import ProgressLine
from ..widgets.controls import ChecklistControl, Edited, RadioControl, TextControl
from ..widgets.dashboard import result
from ..widgets.dashboard.block import Block
from ..widgets.dashboard.lines import wrapped
from ..widgets.text import literal

if TYPE_CHECKING:
    from ..app import FinetuiApp

POLL_SECONDS = 0.5
_PUBLIC = "public"


class OutletsModal(ModalScreen[None]):
    """Asks where, says what would be done, does it when told to, and follows it. An upload goes on without this window."""

    CSS_PATH = ["modal.tcss", "outlets.tcss"]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", id="outlets.close"),
        Binding("f5", "go", "Go on", id="outlets.go"),
        Binding("down", "app.focus_next", "Next", show=False, id="outlets.next"),
        Binding("up", "app.focus_previous", "Previous", show=False, id="outlets.previous"),
        Binding("pageup", "page(-1)", "Scroll up", show=False, id="outlets.pageup"),
        Binding("pagedown", "page(1)", "Scroll down", show=False, id="outlets.pagedown"),
    ]

    def __init__(self, run: RunFolder) -> None:
        super().__init__()
        self.run = run
        self.there = exports.finished(run)
        self.place: Place = PLACES[0]
        self.planned: Planned | None = None
        self.work: Work | None = None
        self.standing: Standing | None = None
        self.error: FinetuiError | None = None
        self.looking = False

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    def compose(self) -> ComposeResult:
        labels = {done.format: f"{done.info.title} {bytes_words(done.bytes)}" for done in self.there}
        first = self._first(self.place)
        with Vertical(classes="modal-box"):
            yield Static(Content.assemble(("Where to?", "bold $accent")), markup=False)
            yield RadioControl(
                [p.key for p in PLACES], self.place.key, {p.key: p.title for p in PLACES}, id="outlets-place"
            )
            yield Static(id="outlets-about", markup=False)
            if labels:
                yield ChecklistControl(list(labels), first, labels, id="outlets-formats")
            with Horizontal(id="outlets-line"):
                yield Static(id="outlets-asks", markup=False)
                yield TextControl("", id="outlets-name")
            with Horizontal(id="outlets-over"):
                yield Static("Over", id="outlets-over-asks", markup=False)
                yield TextControl("", id="outlets-base")
            yield ChecklistControl(
                (_PUBLIC,), (), {_PUBLIC: "let anybody see and download it"}, id="outlets-public"
            )
            with VerticalScroll(id="outlets-told", can_focus=False):
                yield Block(id="outlets-plan")
            yield ProgressLine(id="outlets-progress")
            with Horizontal(classes="modal-buttons"):
                yield Button(Content("Look"), id="outlets-go", compact=True)
                yield Button(Content("Close"), id="outlets-close", compact=True)

    def on_mount(self) -> None:
        self.query_one("#outlets-place").focus()
        self.set_interval(POLL_SECONDS, self._poll)
        self._paint()
        self.finetui.in_background(
            "uploads under way", lambda: Hub.under_way(self.run), self._adopt, lambda _: None
        )

    @while_standing
    def _adopt(self, found: Work | None) -> None:
        if found is not None and self.work is None:
            self.work = found
            self._poll()

    # ── What was chosen ──

    @property
    def formats(self) -> tuple[str, ...]:
        """The exports that are ticked."""
        found = self.query("#outlets-formats")
        return cast("ChecklistControl", found.first()).value if found else ()

    @on(Edited)
    def _edited(self, event: Edited) -> None:
        event.stop()
        if event.edited.id == "outlets-place":
            before, self.place = self.place, next(place for place in PLACES if place.key == event.value)
            if self.formats == self._first(before):  # nobody chose them
                self.query_one("#outlets-formats", ChecklistControl).value = self._first(self.place)
            name = self.query_one("#outlets-name", TextControl)
            try:
                name.show(self.place.suggested(self.run))
            except FinetuiError as error:
                self.error = error
        if self.work is None or not self.working:
            self.planned = self.work = self.standing = self.error = None
        self._paint()

    def _first(self, place: Place) -> tuple[str, ...]:
        """What is ticked to begin with: what `place` can take."""
        formats = [done.format for done in self.there]
        found = place.takes(formats) or next(iter(formats), "")
        return (found,) if found else ()

    @property
    def working(self) -> bool:
        return self.work is not None and (self.standing is None or self.standing.live)

    # ── Plan and work ──

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_go()

    @on(Button.Pressed, "#outlets-go")
    def action_go(self) -> None:
        """The next thing: look what would be done, do it, or stop it."""
        if self.looking:
            return
        if self.working and self.work is not None:
            self.finetui.in_background("stop leaving", self.work.stop, lambda _: None)
        elif self.standing is not None and self.standing.command:
            self.app.copy_to_clipboard(self.standing.command)
            self.standing = Standing(1.0, "Copied to the clipboard.", False, command=self.standing.command)
            self._paint()
        elif self.planned is not None:
            self._start(self.planned)
        elif self.error is not None and self.error.code in ("hub-no-token", "hub-token", "hub-no-rights"):
            self._ask_token()
        else:
            self._look(replace=self.error is not None and self.error.code == "upload-exists")

    def _look(self, *, replace: bool = False) -> None:
        place, formats = self.place, self.formats
        name = self.query_one("#outlets-name", TextControl).value.strip()
        base = self.query_one("#outlets-base", TextControl).value.strip()
        public = bool(self.query_one("#outlets-public", ChecklistControl).value)
        self.looking, self.error, self.planned, self.work, self.standing = True, None, None, None, None
        self._paint()

        def work() -> Planned:
            if not formats:
                raise FinetuiError(
                    "No export is ticked.", "Nothing would leave.", "Tick one above.", code="usage"
                )
            if place.key == "folder" and not name:
                raise FinetuiError("No folder is named.", "", "Name one above.", code="usage")
            return place.plan(self.run, name, formats, public=public, replace=replace, base=base)

        self.finetui.in_background("leaving", work, self._looked, self._failed)

    @while_standing
    def _looked(self, planned: Planned) -> None:
        self.looking, self.planned = False, planned
        self.query_one("#outlets-told").scroll_home(animate=False)
        self.query_one("#outlets-go").focus()
        self._paint()

    @while_standing
    def _failed(self, error: FinetuiError) -> None:
        self.looking, self.error, self.planned = False, error, None
        self._paint()

    def _start(self, planned: Planned) -> None:
        self.looking, self.planned = True, None
        self.finetui.in_background("leaving", planned.start, self._started, self._failed)

    @while_standing
    def _started(self, work: Work) -> None:
        self.looking, self.work, self.standing = False, work, None
        self._poll()

    def _ask_token(self) -> None:
        from .token import TokenModal

        def answered(have: bool | None) -> None:
            if have:
                self._look()

        self.app.push_screen(TokenModal(writes=True), answered)

    @while_standing
    def _poll(self) -> None:
        if self.work is None or not self.working:
            return
        work = self.work

        def seen(standing: Standing) -> None:
            if self.work is work:
                self._seen(standing)

        self.finetui.in_background("leaving stands", work.poll, seen, self._failed)

    @while_standing
    def _seen(self, standing: Standing) -> None:
        self.standing, self.error = standing, standing.error
        if standing.error is not None:
            self.work = self.standing = None
        self._paint()

    # ── Painting ──

    @while_standing
    def _paint(self) -> None:
        place = self.place
        hub = place.key == "hub"
        about = (
            place.about
            if self.there
            else "Nothing is exported yet: tick a format on the screen below and press Enter."
        )
        self.query_one("#outlets-about", Static).update(Content.assemble((about, "$text-muted")))
        self.query_one("#outlets-asks", Static).update(Content(place.asks))
        self.query_one("#outlets-name", TextControl).placeholder = (
            "your account and the run's name" if hub else ""
        )
        self.query_one("#outlets-public").display = hub
        self.query_one("#outlets-over").display = place.wants_base(self.formats)
        self.query_one(
            "#outlets-base", TextControl
        ).placeholder = "a GGUF of the base model, or its name in Ollama"
        width = max(20, self.query_one("#outlets-told").scrollable_content_region.width or 60)
        self.query_one("#outlets-plan", Block).show(self._lines(width))
        line = self.query_one(ProgressLine)
        line.display = self.working or self.looking
        if self.working:
            seen = self.standing or Standing(words="Starting")
            line.show(seen.share, literal(seen.words, 80), "" if seen.share is None else None)
        elif self.looking:
            line.show(None, "Looking", "")
        button = self.query_one("#outlets-go", Button)
        verb = Content(self._verb())
        if button.label != verb:
            button.label = verb
            button.refresh(layout=True)  # it has another width now
        button.disabled = not self.there

    def _lines(self, width: int) -> list[Content]:
        if self.error is not None:
            return result.error(self.error, width)
        if self.planned is not None:
            return [
                Content.assemble((line, "$foreground"))
                for told in self.planned.lines
                for line in wrapped(told, width)
            ]
        standing = self.standing
        if standing is not None and not standing.live:
            mark = glyphs().check if standing.share else glyphs().pause
            lines = [
                Content.assemble((f"{mark} " if not at else "  ", "$success"), (line, "$foreground"))
                for at, line in enumerate(wrapped(standing.words, width - 2))
            ]
            return lines + [Content.assemble((line, "bold")) for line in wrapped(standing.command, width)]
        return []

    def _verb(self) -> str:
        """What the button does next."""
        if self.working:
            return "Stop"
        if self.standing is not None and self.standing.command:
            return "Copy it"
        if self.planned is not None:
            return ("Replace: " if self.planned.replaces else "") + self.planned.verb
        if self.error is not None and self.error.code in ("hub-no-token", "hub-token", "hub-no-rights"):
            return "Give a token"
        if self.error is not None and self.error.code == "upload-exists":
            return "Look, replacing the same names"
        return "Look what would be done"

    # ── Actions ──

    def action_page(self, by: int) -> None:
        told = self.query_one("#outlets-told", VerticalScroll)
        (told.scroll_page_down if by > 0 else told.scroll_page_up)(animate=False)

    @on(Button.Pressed, "#outlets-close")
    def action_close(self) -> None:
        """An upload goes on; what works in this process ends."""
        if self.work is not None and self.working and not self.work.outlives:
            self.work.stop()
        self.dismiss(None)
