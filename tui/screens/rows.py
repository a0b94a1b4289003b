"""What the model sees: one row a page, token by token, as the trainer will get it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, Static

from ...core.errors import FinetuiError
from ..theme import glyphs
from ..widgets.controls import TextControl
from ..widgets.dataset import row as row_lines
from ..widgets.dataset import tokens
from ..widgets.footer import Footer
from ..widgets.header import Header
from ..widgets.text import literal
from .closing import while_standing

if TYPE_CHECKING:
    from ...core.dataset_inspect import Kind
    from ...core.dataset_ledger import Finding, SeenRow
    from ..app import FinetuiApp
    from ..inspecting import Inspection

JUMPS: dict[Kind, tuple[str, str]] = {
    "longest": ("longest", "No row has been read yet."),
    "shortest": ("shortest", "No row has been read yet."),
    "cut": ("cut", "No row is cut: all fit into the sequence length."),
    "dropped": ("dropped", "No row is dropped."),
    "unlearned": ("unlearned", "Something is learned from every row."),
}
"""How a jump is named, and what is said where there is nothing to jump to."""


class RowsScreen(Screen[None]):
    """Pages through the rows that the inspector has read."""

    CSS_PATH = "rows.tcss"
    AUTO_FOCUS = "#seen"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n,right,space", "turn(1)", "Next row", id="rows.next"),
        Binding("p,left", "turn(-1)", "Row before", id="rows.previous"),
        Binding(
            "slash", "ask('find')", "Find", key_display="/", id="rows.find", tooltip="Find a row by its text"
        ),
        Binding("g", "ask('go')", "Go to", show=False, id="rows.go", tooltip="Go to a row by its number"),
        Binding(
            "l",
            "jump('longest')",
            "Longest",
            show=False,
            id="rows.longest",
            tooltip="The longest row, then the next",
        ),
        Binding(
            "s", "jump('shortest')", "Shortest", show=False, id="rows.shortest", tooltip="The shortest row"
        ),
        Binding("c", "jump('cut')", "Cut", show=False, id="rows.cut", tooltip="Rows that lose their end"),
        Binding(
            "d", "jump('dropped')", "Dropped", show=False, id="rows.dropped", tooltip="Rows that are left out"
        ),
        Binding(
            "u",
            "jump('unlearned')",
            "Unlearned",
            show=False,
            id="rows.unlearned",
            tooltip="Rows that teach nothing",
        ),
        Binding(
            "r", "raw", "Raw row", id="rows.raw", tooltip="Show or hide the row as it stands in the file"
        ),
        Binding(
            "f",
            "finding",
            "Next of the finding",
            show=False,
            id="rows.finding",
            tooltip="The next row of the finding",
        ),
        Binding("home", "show_row(0)", "First row", show=False, id="rows.first"),
        Binding("down", "scroll(1)", "Down", show=False, id="rows.down"),
        Binding("up", "scroll(-1)", "Up", show=False, id="rows.up"),
        Binding("pagedown", "page(1)", "Page down", show=False, id="rows.pagedown"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="rows.pageup"),
        Binding("escape", "back", "Back", id="rows.back"),
    ]

    def __init__(self, index: int = 0, finding: Finding | None = None) -> None:
        """Opens at the row `index`, or at the first that `finding` is about; f goes on to the next of those."""
        super().__init__()
        self.at = index
        self.row: SeenRow | None = None
        self.finding = finding
        self._jumped: tuple[str, int] = ("", -1)
        self._asking = ""
        self._needle = ""
        self._message = ""
        self._asked = False
        self._error: FinetuiError | None = None
        self.raw_shown = False

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    @property
    def inspection(self) -> Inspection:
        return self.finetui.wizard.inspection

    def compose(self) -> ComposeResult:
        yield Header()
        yield Static(id="row-head", markup=False)
        yield Static(id="row-legend", markup=False)
        with Horizontal(id="row-body"):
            with VerticalScroll(id="seen"):
                yield Static(id="seen-text", markup=False)
            with VerticalScroll(id="raw"):
                yield Static(id="raw-text", markup=False)
        with Horizontal(id="row-ask"):
            yield Static(id="row-ask-label", markup=False)
            yield TextControl("", id="row-ask-text")
        yield Static(id="row-keys", markup=False)
        yield Footer(first=("rows.next", "rows.find", "rows.raw", "rows.back"))

    def on_mount(self) -> None:
        self.query_one("#row-ask").display = False
        self.query_one(Header).show_machine(self.finetui.looking.machine_line())
        self.finetui.changed.subscribe(self, self._changed)
        self._changed(None)

    # ── Which row ──

    @while_standing
    def _changed(self, _: object) -> None:
        """The inspection went on: the first row is asked for as soon as there is one."""
        if self.inspection.state == "failed":
            self._error = self.inspection.error
        elif not self._asked and self.inspection.ready:
            self._asked = True
            if self.finding is not None:
                self.action_finding()
            else:
                self.action_show_row(self.at)
        self._paint()

    @property
    def total(self) -> int:
        """Rows that have been read."""
        ledger = self.inspection.ledger
        return max(self.inspection.rows_read, ledger.read if ledger is not None else 0)

    def action_show_row(self, index: int) -> None:
        """Asks for the row at `index`, from 0."""
        if self.total:
            index = max(0, min(self.total - 1, index))
        self.finetui.inspecting.ask("row", lambda inspector: inspector.row(index), self._got, self._failed)

    @while_standing
    def _got(self, row: SeenRow) -> None:
        self.row, self.at, self._error = row, row.index, None
        for place in ("#seen", "#raw"):
            self.query_one(place, VerticalScroll).scroll_home(animate=False)
        self._paint()

    @while_standing
    def _failed(self, error: FinetuiError) -> None:
        self._error = error
        self._paint()

    def action_turn(self, by: int) -> None:
        self._message = ""
        if self.total:
            self.action_show_row((self.at + by) % self.total)

    def action_finding(self) -> None:
        """To the first row that the finding is about; pressed again, to the next one."""
        if self.finding is not None:
            self._jump(self.finding.code, "concerned", "No row of this finding can be shown.", "f")

    def action_jump(self, kind: Kind) -> None:
        """To the first row of `kind`; pressed again, to the next one."""
        self._jump(kind, *JUMPS[kind], kind[0])

    def _jump(self, kind: str, name: str, nothing: str, key: str) -> None:
        nth = self._jumped[1] + 1 if self._jumped[0] == kind else 0
        if not self.inspection.ready:
            self.app.bell()
            return

        def found(index: int | None) -> None:
            if index is None and nth:
                self._jumped = (kind, -1)
                self._say(f"that was the last {name} row; {key} starts over")
            elif index is None:
                self._say(nothing)
                if self.row is None:
                    self.action_show_row(self.at)
            else:
                self._jumped = (kind, nth)
                self._message = f"{name}, number {nth + 1}; {key} for the next"
                self.action_show_row(index)

        self.finetui.inspecting.ask("jump", lambda inspector: inspector.jump(kind, nth), found, self._failed)

    def _find(self, text: str) -> None:
        after = self.at

        def found(index: int | None) -> None:
            if index is None:
                self._say(f"No row holds “{text}”.")
            else:
                again = " (from the start again)" if index <= after else ""
                self._message = f"found “{text}”{again}; / and Enter finds the next"
                self.action_show_row(index)

        self._say(f"Looking for “{text}” {glyphs().ellipsis}")
        self.finetui.inspecting.ask(
            "jump", lambda inspector: inspector.find(text, after), found, self._failed
        )

    @while_standing
    def _say(self, words: str) -> None:
        self._message = words
        self._paint()

    # ── Asking for a number or a text ──

    def action_ask(self, what: str) -> None:
        """Opens the line that takes a text to find, or a number to go to."""
        if not self.inspection.ready:
            self.app.bell()
            return
        self._asking = what
        self.query_one("#row-ask").display = True
        self.query_one("#row-keys").display = False
        label = "Find text" if what == "find" else f"Row, 1 to {self.total:,}"
        self.query_one("#row-ask-label", Static).update(Content.assemble((label, "bold $accent")))
        control = self.query_one("#row-ask-text", TextControl)
        control.show(self._needle if what == "find" else "")
        control.focus()
        control.action_end()

    def _stop_asking(self) -> None:
        self._asking = ""
        self.query_one("#row-ask").display = False
        self.query_one("#row-keys").display = True
        self.query_one("#seen").focus()

    @on(Input.Submitted)
    def _answered(self, event: Input.Submitted) -> None:
        event.stop()
        what, text = self._asking, event.value.strip()
        self._stop_asking()
        if not text:
            return
        if what == "find":
            self._needle = text
            self._find(text)
            return
        try:
            number = int(text.replace(",", ""))
        except ValueError:
            self._say(f"“{literal(text, 40)}” is not a number.")
            return
        self._message = ""
        self.action_show_row(number - 1)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """While a text is typed, only Esc is the screen's."""
        if action == "finding" and self.finding is None:
            return False
        return not self._asking or action in ("back", "help", "quit")

    # ── Looks ──

    @property
    def _beside(self) -> bool:
        """Whether the raw row has room beside the tokens."""
        return self.size.width >= 100

    @while_standing
    def _paint(self) -> None:
        row, width = self.row, self.size.width
        beside = self._beside
        self.query_one("#seen").display = beside or not self.raw_shown
        self.query_one("#raw").display = self.raw_shown if not beside else not self.raw_shown
        head = self.query_one(Header)
        head.show_place("What the model sees", f"row {self.at + 1:,} of {self.total:,}" if row else "")
        self.query_one("#row-head", Static).update(
            row_lines.head(row, self._message) if row else Content("\n")
        )
        self.query_one("#row-legend", Static).update(tokens.legend(width - 4))
        self.query_one("#row-keys", Static).update(self._keys(width - 4))
        seen = self.query_one("#seen-text", Static)
        if self._error is not None:
            error = self._error
            seen.update(
                Content.assemble(
                    (f"{glyphs().cross} {literal(error.what, 600)}", "bold $text-error"),
                    f"\n{literal(error.why, 1000)}\n",
                    (f"{glyphs().right} {literal(error.fix, 600)}" if error.fix else "", "$accent"),
                )
            )
            return
        if row is None:
            stage = self.inspection.stage or "reading the first rows"
            idle = self.inspection.state == "idle"
            words = (
                "No model and dataset to show yet."
                if idle
                else f"{stage[:1].upper()}{stage[1:]} {glyphs().ellipsis}"
            )
            seen.update(Content.assemble((literal(words), "$text-muted")))
            return
        cells = max(20, self._cells("#seen"))
        seen.update(row_lines.seen(row, cells, with_raw=not beside))
        self.query_one("#raw-text", Static).update(row_lines.raw(row, max(20, self._cells("#raw"))))

    def _cells(self, place: str) -> int:
        return (self.query_one(place).content_size.width or self.size.width - 4) - 1

    def _keys(self, cells: int) -> Content:
        """The jumps, in a line above the footer, losing the last where it is narrow."""
        raw = ("r", "hide raw" if self._beside != self.raw_shown else "raw row")
        if not self._beside:
            raw = ("r", "tokens" if self.raw_shown else "raw row")
        keys = [
            ("g", "go to"), ("l", "longest"), ("s", "shortest"), ("c", "cut"), ("d", "dropped"), ("u", "unlearned"),
            ("p", "before"), raw,
        ]  # fmt: skip
        runs: list[tuple[str, str]] = []
        used = 0
        for key, word in keys:
            wide = len(key) + len(word) + 3
            if used + wide > cells:
                break
            used += wide
            runs += [(key, "bold $accent"), (f" {word}  ", "$text-muted")]
        return Content.assemble(*runs)

    def on_resize(self, event: events.Resize) -> None:
        self._paint()
        self.call_after_refresh(self._paint)

    def action_raw(self) -> None:
        self.raw_shown = not self.raw_shown
        self._paint()
        self.query_one("#raw" if self.raw_shown and not self._beside else "#seen").focus()
        self.call_after_refresh(self._paint)

    def _scrolled(self) -> VerticalScroll:
        raw = self.raw_shown and not self._beside
        return self.query_one("#raw" if raw else "#seen", VerticalScroll)

    def action_scroll(self, by: int) -> None:
        self._scrolled().scroll_relative(y=by, animate=False)

    def action_page(self, by: int) -> None:
        place = self._scrolled()
        (place.scroll_page_down if by > 0 else place.scroll_page_up)(animate=False)

    def action_back(self) -> None:
        if self._asking:
            self._stop_asking()
        else:
            self.app.pop_screen()
