"""The panes under the dashboard's charts: samples, both logs, machine, recipe, files, result; and the keys in them."""

from __future__ import annotations

from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Input

from ...core.runs import files as run_files
from ...core.runs import output
from ...core.runs.files import Entry
from ...core.runs.output import LEVELS, Piece
from ...core.runs.store import RunFolder
from ..widgets.controls import Edited, TextControl
from ..widgets.dashboard import files, logs, panes
from ..widgets.dashboard.block import Block
from ..widgets.dashboard.ending import ending
from ..widgets.dashboard.logs import Sifted, Sifting
from ..widgets.dashboard.pane import Pane
from ..widgets.dashboard.tabs import TabLine
from ..widgets.footer import Footer
from .following import FollowingScreen

LOGS = ("Log", "Output")
FILES_SECONDS = 5.0
FOOTER = ("stop", "failure", "resume", "talk", "export", "menu", "fix", "tab", "home", "copy", "chart")
LOG_FOOTER = ("tab", "search", "level", "follow")

PANE_BINDINGS = (
    Binding(
        "tab", "tab(1)", "Panes", id="run.tab", tooltip="The next: samples, logs, machine, recipe, files, result"
    ),
    Binding("shift+tab", "tab(-1)", "Pane before", show=False, id="run.tab-back"),
    *(Binding(str(n), f"pane({n})", f"Pane {n}", show=False, id=f"run.pane{n}") for n in range(1, 8)),
    Binding("up", "prompt(-1)", "Previous prompt, or scroll up", show=False, id="run.older"),
    Binding("down", "prompt(1)", "Next prompt, or scroll down", show=False, id="run.newer"),
    Binding("pageup", "page(-1)", "Scroll up", show=False, id="run.pageup"),
    Binding("pagedown", "page(1)", "Scroll down", show=False, id="run.pagedown"),
    Binding("slash", "search", "Search", key_display="/", id="run.search", tooltip="Only lines with these words"),
    Binding("g", "level", "Level", id="run.level", tooltip="All lines, from warnings on, or errors alone"),
    Binding("F", "follow", "Follow", id="run.follow", tooltip="Keep the newest line in sight, or hold still"),
    Binding(
        "n", "earlier", "Find earlier", show=False, id="run.earlier",
        tooltip="The same words before the piece of worker.log that is in sight",
    ),
)  # fmt: skip


class SearchLine(TextControl):
    """Where the words are typed. Enter leaves it, Esc clears it too."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "clear", "Clear", show=False, id="run.search-clear")
    ]

    def action_clear(self) -> None:
        self.value = ""
        self.screen.set_focus(None)


class PanedScreen(FollowingScreen):
    """What the panes show and what the keys in `PANE_BINDINGS` do, on a screen that follows a run."""

    def __init__(self, run: RunFolder) -> None:
        super().__init__(run)
        self.prompt_at = 0
        self.answers_back = 0
        self.tab = "Samples"
        self.tail = Piece()
        """The end of worker.log."""
        self.piece: Piece | None = None
        """What is in sight of worker.log; None follows its end."""
        self.sifting = Sifting()
        self.held = False
        self.entries: list[Entry] | None = None
        self._place: int | None = None
        """Where the pane is to be shown from; None leaves it where it is."""
        self._followed = False
        """Whether the end of a log was in sight when it was last shown."""
        self._sifted: tuple[object, Sifted] = (None, Sifted())
        self._settings: tuple[object, list[Content]] = (None, [])

    def compose_panes(self) -> ComposeResult:
        """The names of the panes, and the one in front."""
        yield TabLine(id="tabs")
        with Horizontal(id="log-line"):
            yield Block(id="log-ruler")
            search = SearchLine("", "words to look for", id="log-search")
            search.cursor_blink = False  # over SSH it would be traffic
            search.display = False
            yield search
        yield Pane(id="pane")

    def predicted_bytes(self) -> int | None:
        """The memory predicted for the training."""
        raise NotImplementedError

    # ── Which pane ──

    def tabs(self) -> tuple[str, ...]:
        """The panes there are now."""
        told = self.ended or bool(self.story.exports) or self.story.score is not None
        names = ("Samples", *LOGS, "Machine", "Recipe", "Files")
        return ("Result", *names) if self.ended else (*names, "Result") if told else names

    def action_tab(self, by: int) -> None:
        names = self.tabs()
        self.choose(names[(names.index(self.tab) + by) % len(names)] if self.tab in names else names[0])

    def action_pane(self, number: int) -> None:
        names = self.tabs()
        if number <= len(names):
            self.choose(names[number - 1])

    def choose(self, name: str) -> None:
        """Brings a pane to the front."""
        logs_before = self.tab in LOGS
        self.tab, self.piece, self.held = name, None, False
        self._place = -1 if name in LOGS else 0
        self.set_class(name in LOGS, "-logs")
        if name == "Files":
            self._look_at_files()
        if logs_before != (name in LOGS):
            first = LOG_FOOTER if name in LOGS else FOOTER
            self.query_one(Footer).set_first(tuple(f"run.{action}" for action in first))
            self.refresh_bindings()
        self.paint()

    @on(TabLine.Chosen)
    def _tab_chosen(self, event: TabLine.Chosen) -> None:
        event.stop()
        self.choose(event.name)

    # ── What it shows ──

    def paint_pane(self) -> None:
        """Shows the pane in front; a log whose end is in sight stays at its end."""
        pane = self.query_one(Pane)
        place, self._place = self._place, None
        if self.tab in LOGS and place is None and self._following(pane):
            place = -1
        elif self.tab == "Output" and place is None and self.piece is None:
            self.piece = self.tail
        lines = self._pane_lines(max(20, self.pane_cells))
        self.set_class(self.tab == "Result" and len(lines) > self.size.height - 15, "-much")
        pane.show(lines, place)
        if self.tab in LOGS:
            shown = (self.piece or self.tail) if self.tab == "Output" else None
            ruler = self.query_one("#log-ruler", Block)
            width = ruler.content_size.width or self.pane_cells
            following = self._following(pane)
            skipped = self.skipped if self.tab == "Log" else 0
            ruler.show(logs.ruler(self._sifted[1], self.sifting, following, shown, width, skipped))
            self._followed = following

    def on_resize(self, event: events.Resize) -> None:
        """A log that was followed is followed in the other size."""
        if self.tab in LOGS and self._followed:
            self.call_after_refresh(self._to_end)

    def _to_end(self) -> None:
        self.held, self.piece, self._place = False, None, -1
        self.paint()

    def _following(self, pane: Pane) -> bool:
        return not self.held and self.piece is None and pane.at_end

    def _pane_lines(self, width: int) -> list[Content]:
        story, status = self.story, self.status
        if self.tab == "Samples":
            compact = self.size.height < 30
            rows = self.query_one(Pane).rows
            return panes.samples(story, self.prompt_at, self.answers_back, width, rows=rows, compact=compact)
        if self.tab in LOGS:
            return list(self._sift(width).lines)
        if self.tab == "Machine":
            compact = self.size.height < 30
            return panes.machine(story, self.predicted_bytes(), width, compact=compact)
        if self.tab == "Recipe":
            key = (self.known.recipe, width)
            if self._settings[0] != key:
                self._settings = (key, panes.settings(self.known.recipe, width, str(self.run.recipe)))
            return self._settings[1]
        if self.tab == "Files":
            return files.lines(self.entries, str(self.run.path), width)
        if status is None:
            return []
        return ending(self.run, story, status, self.done(), self.uses(), self.use_at, width)

    def _sift(self, width: int) -> Sifted:
        """The lines of the log in front, wrapped again only where something changed."""
        log, piece = self.story.log, self.piece or self.tail
        told: object = (len(log), log[-1] if log else None) if self.tab == "Log" else piece
        key = (self.tab, told, self.sifting, width)
        if self._sifted[0] != key:
            sifted = (
                logs.events(log, self.sifting, width)
                if self.tab == "Log"
                else logs.output(piece, self.sifting, width)
            )
            self._sifted = (key, sifted)
        return self._sifted[1]

    def _look_at_files(self) -> None:
        """Lists the run's files, again every few seconds while they are in front."""
        if self.tab != "Files" or not self.is_attached:
            return

        def found(entries: list[Entry]) -> None:
            self.entries = entries
            self.paint()
            if self.is_attached and self.live:
                self.set_timer(FILES_SECONDS, self._look_at_files)

        group = f"files {self.run.id}"
        self.finetui.in_background(group, lambda: run_files.listing(self.run), found, lambda _: None)

    # ── Moving in it ──

    def action_prompt(self, by: int) -> None:
        if self.tab == "Samples" and self.story.asked:
            self.prompt_at += by
            self.paint()
        elif not self._leave_piece(by):
            self.pane.scroll_relative(y=by, animate=False)
            self.paint()

    def action_page(self, by: int) -> None:
        if not self._leave_piece(by):
            super().action_page(by)
            self.paint()

    def _leave_piece(self, by: int) -> bool:
        """At the edge of the piece of worker.log in sight: reads the one before or after it. Whether it does."""
        if self.tab != "Output":
            return False
        pane, piece = self.query_one(Pane), self.piece or self.tail
        if by < 0 and pane.scroll_y <= 0 and piece.start > 0:
            self._read(lambda: output.before(self.run.log, piece.start), -1)
        elif by > 0 and pane.at_end and self.piece is not None:
            if piece.end >= self.tail.start:
                self.action_follow()
            else:
                self._read(lambda: output.after(self.run.log, piece.end), 0)
        else:
            return False
        return True

    def _read(self, work: Any, place: int) -> None:
        def done(piece: Piece | None) -> None:
            if piece is None:
                self.say("There is nothing like it further up.")
            elif self.tab == "Output":
                self.piece, self._place, self.said = piece, place, ""
                self.paint()

        def failed(error: Exception) -> None:
            self.say(f"worker.log cannot be read: {error}")

        self.finetui.in_background(f"output {self.run.id}", work, done, failed)

    # ── The logs ──

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leaves out what is not for the pane in front."""
        if action in ("search", "level", "follow"):
            return self.tab in LOGS
        if action == "earlier":
            return self.tab == "Output"
        return super().check_action(action, parameters)

    def action_level(self) -> None:
        level = LEVELS[(LEVELS.index(self.sifting.level) + 1) % len(LEVELS)]
        self._sift_by(Sifting(level, self.sifting.words))

    def _sift_by(self, sifting: Sifting) -> None:
        self.sifting = sifting
        self._place = -1
        self.paint()

    def action_follow(self) -> None:
        """Holds still, or goes to the end and stays there."""
        pane = self.query_one(Pane)
        if self._following(pane):
            self.held = True
            if self.tab == "Output":
                self.piece = self.tail
            self.paint()
        else:
            self._to_end()

    def action_search(self) -> None:
        search = self.query_one(SearchLine)
        search.display = True
        self.set_focus(search)

    @on(Edited)
    def _searched(self, event: Edited) -> None:
        event.stop()
        self._sift_by(Sifting(self.sifting.level, str(event.value)))

    @on(Input.Submitted, "#log-search")
    def _search_done(self, event: Input.Submitted) -> None:
        event.stop()
        self.set_focus(None)

    @on(SearchLine.Blurred, "#log-search")
    def _search_left(self) -> None:
        self.query_one(SearchLine).display = False

    def action_earlier(self) -> None:
        """Looks for the words before the piece in sight, through all of the file."""
        words, piece = self.sifting.words, self.piece or self.tail
        if not words or piece.start <= 0:
            self.app.bell()
            return

        def work() -> Piece | None:
            end = output.find_before(self.run.log, words, piece.start, lambda: not self.is_attached)
            return None if end is None else output.before(self.run.log, end)

        self.say(f"Looking for it in the {piece.start:,} bytes before.")
        self._read(work, -1)
