"""All runs: sorted, filtered, marked and compared."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, cast

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.coordinate import Coordinate
from textual.screen import Screen
from textual.widgets import DataTable, Input, Static

from ...core.runs import compare, summary
from ...core.runs.store import RunFolder
from ...core.runs.summary import COLUMNS, Column, Summaries, Summary
from ...core.text import bytes_words, counted, duration_words
from ..run_actions import ACTIONS, act, allowed, menu
from ..theme import glyphs
from ..widgets.dashboard.story import number
from ..widgets.footer import Footer
from ..widgets.header import Header
from ..widgets.menu import state_mark
from ..widgets.text import clip_middle, literal
from .closing import while_standing

if TYPE_CHECKING:
    from ..app import FinetuiApp

LOOK_SECONDS = 2.0
WAYS: dict[Column, str] = {
    "newest": "the newest first",
    "name": "by name",
    "state": "by state",
    "loss": "by loss",
    "best": "by best held-out loss",
    "time": "by time taken",
    "model": "by model",
    "data": "by data",
    "size": "by size on disk",
}


class RunsScreen(Screen[None]):
    """Every run in one table, from summaries that cost nothing once they were read."""

    CSS_PATH = "runs.tcss"
    AUTO_FOCUS = "#runs-table"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "mark", "Mark", id="runs.mark", tooltip="Mark this run, to compare"),
        Binding(
            "c", "compare", "Compare", id="runs.compare", tooltip="The marked runs side by side, two to six"
        ),
        Binding("o", "order", "Sort", id="runs.order", tooltip="By the next column"),
        Binding("O", "turn", "The other way round", show=False, id="runs.turn"),
        Binding("slash", "filter", "Filter", key_display="/", id="runs.filter", tooltip="Words, or best<0.5"),
        Binding("z", "archived", "Archived ones too", show=False, id="runs.archived"),
        Binding("m", "menu", "Actions", id="runs.actions", tooltip="All that can be done with this run"),
        *(
            Binding(
                one.key, f"act('{one.name}')", one.title, show=False, id=f"runs.{one.name}", tooltip=one.words
            )
            for one in ACTIONS
        ),
        Binding("escape", "back", "Back", id="runs.back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Summary] | None = None
        self.shown: list[Summary] = []
        self.marked: list[str] = []
        self.order: Column = "newest"
        self.reverse = False
        self.archived = False
        self._summaries = Summaries()
        self._looking = False
        self._drawn: object = None

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    @property
    def table(self) -> DataTable[Text]:
        return cast("DataTable[Text]", self.query_one("#runs-table", DataTable))

    def compose(self) -> ComposeResult:
        yield Header()
        with Vertical(id="runs"):
            yield Static(id="runs-head", markup=False)
            yield Input(placeholder="words in name, model, data, state, #tag; best<0.5", id="runs-words")
            yield DataTable(id="runs-table", cursor_type="row", zebra_stripes=False)
        yield Footer(first=("runs.actions", "runs.mark", "runs.compare", "runs.filter"))

    def on_mount(self) -> None:
        self.query_one(Header).show_place("Runs")
        self.query_one("#runs-words", Input).display = False
        self.look()
        self.set_interval(LOOK_SECONDS, self.look)
        self.paint()

    def on_resize(self) -> None:
        self.call_after_refresh(self.paint)

    def look(self) -> None:
        """Reads the runs in a thread."""
        if not self._looking and (self.app.screen is self or self.found is None):
            self._looking = True
            self.finetui.in_background("all runs", self._summaries.read, self._read, self._not_read)

    def _not_read(self, _: object) -> None:
        self._looking = False

    @while_standing
    def _read(self, found: list[Summary]) -> None:
        self._looking = False
        if self.app.screen is not self and self.found is not None:
            return
        self.found = found
        self.paint()

    # ── Painting ──

    @while_standing
    def paint(self) -> None:
        """Shows the runs that match, in their order. A table that stands already is not drawn again."""
        words = self.query_one("#runs-words", Input).value
        every = [one for one in self.found or [] if self.archived or not one.archived]
        self.shown = summary.ordered(summary.matching(every, words), self.order, self.reverse)
        width = self.size.width
        key = (tuple(self.shown), width, self.order, self.found is None, glyphs().unicode)
        middot = f" {glyphs().middot} "
        runs = counted(len(every), "run")
        told = [f"{len(self.shown):,} of {runs}" if words else runs]
        told.append(WAYS[self.order] + (", the other way round" if self.reverse else ""))
        if words and not self.shown:
            told.append("Esc shows all")
        if self.marked:
            told.append(f"{len(self.marked)} marked")
        if self.found is None:
            told = ["Looking at the runs"]
        self.query_one("#runs-head", Static).update(middot.join(told))
        if key == self._drawn:
            return
        self._drawn = key
        table = self.table
        at, scroll = self._current(), table.scroll_y
        table.clear(columns=True)
        wide, roomy = width >= 116, width >= 150
        heads = [("", 1), ("State", 9), ("Steps", 11), ("Loss", 6), ("Best", 6)]
        if wide:
            heads += [("Time", 11), ("Model", 16), ("Size", 9)]
        if roomy:
            heads += [("Data", 24)]
        heads.append(("Ago", 6))
        name = max(12, min(48, width - 6 - 2 - sum(cells + 2 for _, cells in heads)))
        heads.insert(1, ("Run", name))
        for label, cells in heads:
            table.add_column(label, width=cells)
        now = time.time()
        for one in self.shown:
            table.add_row(*self._cells(one, name, wide, roomy, now), key=one.run)
        if at is not None:
            index = next((i for i, one in enumerate(self.shown) if one.run == at), 0)
            table.move_cursor(row=index, animate=False)
            table.scroll_to(y=scroll, animate=False)

    def _cells(self, one: Summary, name: int, wide: bool, roomy: bool, now: float) -> list[Text]:
        marks = glyphs()
        mark, _ = state_mark(one.state)
        steps = f"{one.step:,}/{one.total_steps:,}" if one.total_steps else marks.dash
        cells = [
            "*" if one.run in self.marked else mark,
            clip_middle(literal(one.name, 80), name),
            "paused" if one.paused else one.state,
            steps,
            number(one.loss) if one.loss is not None else marks.dash,
            number(one.best) if one.best is not None else marks.dash,
        ]
        if wide:
            model = clip_middle(literal(one.model, 120).rpartition("/")[2], 16)
            took = duration_words(one.seconds) if one.state != "queued" else marks.dash
            cells += [took, model, bytes_words(one.bytes)]
        if roomy:
            cells += [clip_middle(literal(one.data, 120), 24)]
        cells.append(_ago(now - one.started_ts) if one.started_ts else marks.dash)
        return [Text(text, no_wrap=True) for text in cells]

    def _current(self) -> str | None:
        row = self.table.cursor_row
        return self.shown_keys()[row] if 0 <= row < len(self.shown_keys()) else None

    def shown_keys(self) -> list[str]:
        """The runs of the table's rows, as they stand there."""
        return [str(key.value) for key in self.table.rows]

    # ── Keys ──

    @on(DataTable.RowSelected)
    def _open(self, event: DataTable.RowSelected) -> None:
        event.stop()
        one = next((one for one in self.shown if one.run == event.row_key.value), None)
        if one is not None:
            self.finetui.open_run(summary.folder_of(one))

    @property
    def chosen(self) -> Summary | None:
        """The run under the cursor."""
        at = self._current()
        return next((one for one in self.shown if one.run == at), None)

    @on(DataTable.RowHighlighted)
    def _moved(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        self.refresh_bindings()  # other runs allow other things

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leaves out what the run under the cursor does not allow."""
        if action not in ("act", "menu") or not self.is_mounted:
            return super().check_action(action, parameters)
        chosen = self.chosen
        if chosen is None or action == "menu":
            return chosen is not None
        return allowed(str(parameters[0]), chosen)

    def action_act(self, name: str) -> None:
        if (chosen := self.chosen) is not None:
            act(self.finetui, RunFolder(summary.folder_of(chosen)), name, self._changed)

    def action_menu(self) -> None:
        if (chosen := self.chosen) is not None:
            menu(self.finetui, RunFolder(summary.folder_of(chosen)), chosen.name, chosen, self._changed)

    def _changed(self, words: str = "") -> None:
        if words:
            self.app.notify(words, markup=False)
        self.look()

    def action_mark(self) -> None:
        at = self._current()
        if at is None:
            return
        if at in self.marked:
            self.marked.remove(at)
        elif len(self.marked) < compare.MOST:
            self.marked.append(at)
        else:
            self.app.bell()
        table, row = self.table, self.table.cursor_row
        one = next(one for one in self.shown if one.run == at)
        mark = "*" if at in self.marked else state_mark(one.state)[0]
        table.update_cell_at(Coordinate(row, 0), Text(mark, style="bold" if at in self.marked else ""))
        table.action_cursor_down()
        self.paint()

    def action_compare(self) -> None:
        chosen = [one for one in self.found or [] if one.run in self.marked]
        if len(chosen) < 2:
            self.app.notify("Mark two to six runs with Space first.", markup=False)
            return
        from .compare import CompareScreen

        self.app.push_screen(CompareScreen(chosen))

    def action_order(self) -> None:
        self.order = COLUMNS[(COLUMNS.index(self.order) + 1) % len(COLUMNS)]
        self.paint()

    def action_turn(self) -> None:
        self.reverse = not self.reverse
        self.paint()

    def action_archived(self) -> None:
        self.archived = not self.archived
        self.paint()

    def action_filter(self) -> None:
        words = self.query_one("#runs-words", Input)
        words.display = True
        words.focus()

    @on(Input.Changed, "#runs-words")
    def _filtered(self, event: Input.Changed) -> None:
        event.stop()
        self.paint()

    @on(Input.Submitted, "#runs-words")
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        self.table.focus()

    def action_back(self) -> None:
        words = self.query_one("#runs-words", Input)
        if words.display:
            words.value = ""
            words.display = False
            self.table.focus()
            self.paint()
            return
        self.app.pop_screen()


def _ago(seconds: float) -> str:
    """`now`, `5 min`, `3 h`, `12 d`."""
    if seconds < 60:
        return "now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min"
    return f"{int(seconds // 3600)} h" if seconds < 172_800 else f"{int(seconds // 86_400)} d"
