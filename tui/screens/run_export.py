"""The export of a run that has learned something: which formats, how large, and what to do with each next."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import events as textual_events
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import OptionList, Static

from ...core.errors import FinetuiError
from ...core.export import FORMATS, estimated_bytes
from ...core.recipe import ExportFormat
from ...core.runs.events import Exported
from ...core.runs.state import RunStatus
from ...core.runs.store import RunFolder
from ...core.text import bytes_words, duration_words, one_line
from ..theme import glyphs
from ..widgets.bars import ProgressLine
from ..widgets.dashboard import result
from ..widgets.dashboard.background import Known, copy_commands, disk_free_bytes, export, look_up, ordered
from ..widgets.dashboard.feed import POLL_SECONDS, Feed
from ..widgets.dashboard.lines import wrapped
from ..widgets.dashboard.story import STAGES, Story, progress_words
from ..widgets.footer import Footer
from ..widgets.header import Header
from ..widgets.menu import Item, Menu
from ..widgets.text import literal

if TYPE_CHECKING:
    from ..app import FinetuiApp

GIB = 1024**3


class RunExportScreen(Screen[None]):
    """Ticks formats, exports them in a worker, and shows what came of it. Leaving does not stop the export."""

    CSS_PATH = ["run_export.tcss"]
    AUTO_FOCUS = "#formats"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "tick", "Tick", id="export.tick", tooltip="Take this format, or leave it out"),
        Binding(
            "enter", "start", "Export", id="export.start", priority=True, tooltip="Write the ticked formats"
        ),
        Binding(
            "y",
            "copy",
            "Copy command",
            id="export.copy",
            tooltip="The command shown, to the clipboard and to a file",
        ),
        Binding("left", "turn(-1)", "Previous command", show=False, id="export.previous"),
        Binding("right", "turn(1)", "Next command", show=False, id="export.next"),
        Binding("escape", "back", "Back", id="export.back", tooltip="Back to the run; an export goes on"),
        Binding("pageup", "page(-1)", "Scroll up", show=False, id="export.pageup"),
        Binding("pagedown", "page(1)", "Scroll down", show=False, id="export.pagedown"),
    ]

    def __init__(self, run: RunFolder, known: Known | None = None) -> None:
        super().__init__()
        self.run = run
        self.known = known or Known()
        self.feed = Feed(run)
        self.story = Story()
        self.status: RunStatus | None = None
        self.caught_up = False
        self.ticked: set[ExportFormat] = set()
        self.said = ""
        self.use_at = 0
        self.free_bytes: int | None = None
        self.refused: FinetuiError | None = None
        self._chosen = False
        self._asked = False
        self._shown: tuple[Item, ...] = ()
        self._drawn = ""

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    # ── Layout ──

    def compose(self) -> ComposeResult:
        yield Header()
        with Vertical(id="export-body"):
            yield Static(id="export-head", markup=False)
            yield Menu(id="formats", title_cells=22)
            yield Static(id="export-about", markup=False)
            yield Static(id="export-total", markup=False)
            yield ProgressLine(id="export-progress")
            with VerticalScroll(id="export-results", can_focus=False):
                yield Static(id="export-text", markup=False)
            yield Static(id="export-alert", markup=False)
        yield Footer(first=("export.start", "export.tick", "export.copy", "export.back"))

    def on_mount(self) -> None:
        if self.known.recipe is None:
            self.finetui.in_background(
                f"export facts {self.run.id}", lambda: look_up(self.run), self._learn, lambda _: None
            )
        self._look_at_disk()
        self.feed.start()
        self.set_interval(POLL_SECONDS, self.pump)
        self.paint()

    def on_unmount(self) -> None:
        self.feed.stop()

    def _learn(self, known: Known) -> None:
        self.known = known
        self.paint()

    def _look_at_disk(self) -> None:
        def seen(free: int | None) -> None:
            self.free_bytes = free
            self.paint()

        self.finetui.in_background(
            f"disk {self.run.id}", lambda: disk_free_bytes(self.run.path), seen, lambda _: None
        )

    # ── News ──

    @property
    def live(self) -> bool:
        """Whether a worker is at work on the run."""
        return self.status is not None and self.status.live

    def pump(self) -> None:
        """Takes what is new and shows it."""
        if not self.is_attached:
            return
        news = self.feed.take()
        was = self.live
        self.status = news.status or self.status
        self.story.extend(news.records)
        self.caught_up = not news.more and self.status is not None
        if news.more:
            self.set_timer(0.02, self.pump)
        if self.caught_up and not self._chosen:
            self._choose_first()
        if any(isinstance(record.event, Exported) for record in news.records):
            self.refresh_bindings()
        if was != self.live:
            self._asked = False
            self.refresh_bindings()
            if was:
                self.said = ""
                self.ticked -= set(self.story.exports)
                self._look_at_disk()
        self.paint()

    def _choose_first(self) -> None:
        """A first tick: the recipe's formats that are not there yet, else the small GGUF."""
        self._chosen = True
        recipe = self.known.recipe
        wanted = recipe.export.formats if recipe is not None else ()
        missing: list[ExportFormat] = [f for f in (*wanted, "gguf_q8_0") if f not in self.story.exports]
        if missing:
            self.ticked.add(missing[0])
        order = tuple(FORMATS)
        at = missing[0] if missing else next((f for f in order if f not in self.story.exports), order[0])
        self.query_one("#formats", Menu).highlighted = order.index(at)

    # ── Painting ──

    def base_bytes(self) -> int | None:
        """The base model's size: as the worker measured it, else of the files found."""
        if self.story.model is not None and self.story.model.base_bytes:
            return self.story.model.base_bytes
        measured = next((e.base_bytes for e in self.story.exports.values() if e.base_bytes), None)
        return measured or (self.known.facts.weights_bytes if self.known.facts else None)

    def expected_bytes(self, format: ExportFormat) -> int | None:
        """About how large `format` will be."""
        facts, recipe = self.known.facts, self.known.recipe
        return (
            estimated_bytes(format, facts, recipe.lora) if facts is not None and recipe is not None else None
        )

    def items(self) -> tuple[Item, ...]:
        """One line for each format."""
        marks = glyphs()
        items = []
        for format, info in FORMATS.items():
            done: Exported | None = self.story.exports.get(format)
            expected = self.expected_bytes(format)
            if done is not None:
                right = f"{marks.check} {bytes_words(done.bytes)}"
            else:
                right = f"~{bytes_words(expected)}" if expected else marks.dash
            ticked = format in self.ticked
            words = info.summary + (f" {marks.middot} needs llama.cpp" if info.needs_llama_cpp else "")
            box = f"[{marks.check if ticked else ' '}]"
            items.append(Item(format, f"{box} {info.title}", literal(words), right, "", "$accent"))
        return tuple(items)

    def paint(self) -> None:
        """Shows the present state."""
        if not self.is_attached or not self.query(Header):  # an answer may come while it closes
            return
        marks, status = glyphs(), self.status
        header = self.query_one(Header)
        header.show_place((status.name if status else "") or self.run.id[16:], "export")
        header.show_machine(self.finetui.looking.machine_line())
        base = self.base_bytes()
        head = (
            f"The base model has {bytes_words(base)}."
            if base
            else "Choose the forms in which the result leaves."
        )
        self.query_one("#export-head", Static).update(
            Content.assemble(("Export", "bold $accent"), ("   " + head, "$text-muted")).truncate(
                max(20, self.size.width - 4), ellipsis=True
            )
        )
        items = self.items()
        menu = self.query_one("#formats", Menu)
        if items != self._shown:
            self._shown = items
            menu.show(items)
            if menu.highlighted is None:
                menu.highlighted = 0
        self._paint_about()
        self.query_one("#export-total", Static).update(self._total())
        line = self.query_one("#export-progress", ProgressLine)
        line.set_class(not (self.live or self._asked), "-nothing")
        if self.live and status is not None:
            words = STAGES.get(status.stage, one_line(status.stage, 40))
            told = status.stage_text or progress_words(
                status.stage_done, status.stage_total, status.stage_unit
            )
            done = status.stage_done / status.stage_total if status.stage_total > 0 else None
            text = f"{words}: {one_line(told, 80)}" if told else words
            line.show(done, text, duration_words(status.seconds) if done is None else None)
        elif self._asked:
            line.show(None, "Starting a worker", "")
        self._paint_results(marks.check)

    def _paint_about(self) -> None:
        """What the format under the cursor is."""
        at = self.query_one("#formats", Menu).highlighted
        info = FORMATS[tuple(FORMATS)[at or 0]]
        more = (
            "; llama.cpp's quantizer makes it, and is fetched once if it is not here"
            if info.needs_llama_cpp
            else ""
        )
        words = f"{info.title}: {info.summary}{more}."
        self.query_one("#export-about", Static).update(Content.assemble((literal(words), "$text-muted")))

    @on(OptionList.OptionHighlighted, "#formats")
    def _moved(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        self._paint_about()

    def _total(self) -> Content:
        marks = glyphs()
        chosen: list[ExportFormat] = [f for f in FORMATS if f in self.ticked]
        if not chosen:
            return Content.assemble(("Space ticks a format, Enter exports.", "$text-muted"))
        known = [size for f in chosen if (size := self.expected_bytes(f)) is not None]
        need = sum(known)
        words = f"{len(chosen)} ticked" + (f" {marks.middot} about {bytes_words(need)}" if known else "")
        free = "" if self.free_bytes is None else f" {marks.middot} {bytes_words(self.free_bytes)} free"
        if self._too_large():
            return Content.assemble((f"{marks.warn} {words}{free}: too little space", "bold $text-warning"))
        return Content.assemble(
            (words + free, "$foreground"), (f" {marks.middot} Enter exports", "$text-muted")
        )

    def _too_large(self) -> bool:
        need = sum(self.expected_bytes(f) or 0 for f in self.ticked)
        return self.free_bytes is not None and need > self.free_bytes

    def _paint_results(self, check: str) -> None:
        pane = self.query_one("#export-results", VerticalScroll)
        width = max(20, pane.scrollable_content_region.width or self.size.width - 4)
        lines: list[Content] = []
        status = self.status
        if self.refused is not None:
            lines += [*result.error(self.refused, width), Content("")]
        elif status is not None and status.card is not None and not status.live and not self._asked:
            lines += [*result.card(status.card, width), Content("")]
        done = ordered(self.story.exports.values())
        if done:
            lines += result.exports(self.run, done, self._uses(), self.use_at, width)
        else:
            lines += [Content.assemble((line, "$text-muted")) for line in wrapped(self._explain(), width)]
        content = Content("\n").join(lines)
        if content.plain != self._drawn:
            self._drawn = content.plain
            self.query_one("#export-text", Static).update(content)
        alert = self.query_one("#export-alert", Static)
        words = self.said
        warning = self.story.warning
        if (
            not words
            and warning is not None
            and warning.code.startswith(("export", "gguf", "llama", "merge"))
        ):
            words = " ".join(part for part in (warning.what, warning.why, warning.fix) if part)
        alert.set_class(not words, "-nothing")
        alert.update(Content.assemble((literal(words, 400), "$accent")))

    def _explain(self) -> str:
        return (
            "The adapter alone is small, and needs the base model beside it. A GGUF is one file with everything in it, for Ollama, "
            "LM Studio and llama.cpp: Q8_0 is half of F16 and as good as exact. Merged is a folder for Transformers and vLLM."
        )

    def _uses(self) -> list[result.Use]:
        return result.uses(self.run, self.known.recipe, ordered(self.story.exports.values()))

    def on_resize(self, event: textual_events.Resize) -> None:
        self.call_after_refresh(self.paint)

    # ── Actions ──

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Nothing new can be started while a worker is at work."""
        if action in ("start", "tick"):
            return not self.live
        if action == "copy":
            return bool(self.story.exports)
        return super().check_action(action, parameters)

    def action_tick(self) -> None:
        at = self.query_one("#formats", Menu).highlighted
        if at is not None:
            self.ticked.symmetric_difference_update((tuple(FORMATS)[at],))
            self.said = ""
            self.paint()

    @on(OptionList.OptionSelected, "#formats")
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.action_tick()

    def action_start(self) -> None:
        if self.live or self._asked:
            return
        if not self.ticked or self._too_large():
            self.said = "" if self.ticked else "Nothing is ticked yet: Space ticks the line that you are on."
            self.app.bell()
            self.paint()
            return
        formats = [f for f in FORMATS if f in self.ticked]
        self._asked, self.refused, self.said = True, None, ""

        def done(_: object) -> None:
            self.feed.look()

        def failed(error: FinetuiError) -> None:
            self._asked, self.refused = False, error
            self.paint()

        self.finetui.shown_run = self.run
        self.finetui.in_background(f"export {self.run.id}", lambda: export(self.run, formats), done, failed)
        self.paint()

    def action_turn(self, by: int) -> None:
        self.use_at += by
        self.paint()

    def action_page(self, by: int) -> None:
        pane = self.query_one("#export-results", VerticalScroll)
        (pane.scroll_page_down if by > 0 else pane.scroll_page_up)(animate=False)

    def action_copy(self) -> None:
        ways = self._uses()
        if not ways:
            return

        def done(words: str) -> None:
            self.said = words
            self.paint()

        self.app.copy_to_clipboard(ways[self.use_at % len(ways)].command)
        self.finetui.in_background(f"copy {self.run.id}", lambda: copy_commands(self.run, ways), done)

    def action_back(self) -> None:
        self.dismiss(None)

    def explain_content(self) -> Content:
        """The formats, for the help."""
        lines = [Content.assemble(("Formats\n", "bold $accent"), self._explain())]
        for info in FORMATS.values():
            lines.append(Content.assemble((f"{info.title}: ", "bold"), (info.summary, "$text-muted")))
        return Content("\n").join(lines)
