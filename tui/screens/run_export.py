"""The export of a run that has learned something: which formats, how large, and what to do with each next."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content

from ...core.errors import FinetuiError
from ...core.export import FORMATS
from ...core.export_plan import Plan
from ...core.recipe import ExportFormat
from ...core.runs.store import RunFolder
from ...core.text import bytes_words, one_line
from ..modals.confirm import ConfirmModal
from ..theme import glyphs
from ..widgets.bars import ProgressLine
from ..widgets.dashboard import doing, result
from ..widgets.dashboard import formats as lines
from ..widgets.dashboard.alert import in_full
from ..widgets.dashboard.background import Known, export, plan_export
from ..widgets.dashboard.block import Block
from ..widgets.dashboard.feed import News
from ..widgets.dashboard.lines import wrapped
from ..widgets.footer import Footer
from ..widgets.header import Header
from ..widgets.menu import Menu
from ..widgets.text import literal
from .run_formats import FormatsScreen


class RunExportScreen(FormatsScreen):
    """Ticks formats, exports them in a worker, and shows what came of it. Leaving does not stop the export."""

    CSS_PATH = ["run_export.tcss"]
    AUTO_FOCUS = "#formats"
    PANE = "#export-results"
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
        Binding(
            "w",
            "weights",
            "Weights",
            id="export.weights",
            tooltip="Whose weights: what the run ended with, the best, or the last",
        ),
        Binding(
            "i",
            "importance",
            "Importance",
            id="export.importance",
            tooltip="Quantize with an importance matrix from the training data, or without",
        ),
        Binding("t", "talk", "Try it", id="export.talk", tooltip="Talk to base and tuned side by side"),
        Binding(
            "o",
            "where",
            "Where to?",
            id="export.where",
            tooltip="To the hub, to Ollama, or to a folder elsewhere",
        ),
        Binding("left", "turn(-1)", "Previous command", show=False, id="export.previous"),
        Binding("right", "turn(1)", "Next command", show=False, id="export.next"),
        Binding("escape", "back", "Back", id="export.back", tooltip="Back to the run; an export goes on"),
        Binding("pageup", "page(-1)", "Scroll up", show=False, id="export.pageup"),
        Binding("pagedown", "page(1)", "Scroll down", show=False, id="export.pagedown"),
    ]

    def __init__(self, run: RunFolder, known: Known | None = None) -> None:
        super().__init__(run, known)
        self.refused: FinetuiError | None = None
        self._asked = False
        self._was_live = False

    # ── Layout ──

    def compose(self) -> ComposeResult:
        yield Header()
        with Vertical(id="export-body"):
            yield Block(id="export-head")
            yield Menu(id="formats", title_cells=22)
            yield Block(id="export-about")
            yield Block(id="export-total")
            yield ProgressLine(id="export-progress")
            with VerticalScroll(id="export-results", can_focus=False):
                yield Block(id="export-text")
            yield Block(id="export-alert")
        yield Footer(first=("export.start", "export.tick", "export.where", "export.back", "export.talk"))

    # ── News ──

    def take(self, news: News) -> None:
        if self.caught_up and not self.chosen and self.known.recipe is not None:
            self.choose_first()
            self.look_at_plan()
        if self.live != self._was_live:
            self._was_live, self._asked = self.live, False
            self.refresh_bindings()
            if not self.live:
                self.said = ""
                self.ticked -= set(self.story.exports)
                self.look_at_disk()
                self.look_at_plan()

    # ── Painting ──

    def paint_all(self) -> None:
        header, base = self.query_one(Header), self.base_bytes()
        header.show_place(self.run_name, "export")
        header.show_machine(self.finetui.looking.machine_line())
        words = (
            f"The base model has {bytes_words(base)}."
            if base
            else "Choose the forms in which the result leaves."
        )
        if self.plan is not None:
            base = f"{words} {glyphs().middot} " if self.size.width >= 100 else ""
            words = f"{base}Of {self.plan.weights.words}"
        head = Content.assemble(("Export", "bold $accent"), ("   " + words, "$text-muted"))
        self.query_one("#export-head", Block).show(
            [head.truncate(max(20, self.size.width - 4), ellipsis=True)]
        )
        self.paint_formats()
        self._paint_progress()
        self.query_one("#export-text", Block).show(self._results(self.pane_cells))
        words = self._alert()
        alert = [Content.assemble((literal(words, 400), "$accent"))] if words else []
        self.query_one("#export-alert", Block).show(alert)

    def _paint_progress(self) -> None:
        status, line = self.status, self.query_one(ProgressLine)
        line.set_class(not (self.live or self._asked), "-nothing")
        if status is not None and status.live:
            told = one_line(status.stage_text or doing.amount(status), 80)
            line.show(*doing.at_stage(status, f": {told}" if told else ""))
        elif self._asked:
            line.show(None, "Starting a worker", "")

    def _results(self, width: int) -> list[Content]:
        """What went wrong, if anything did; then what is there, or what the formats are for."""
        said: list[Content] = []
        status, done = self.status, self.done()
        if self.refused is not None:
            said += [*result.error(self.refused, width), Content("")]
        elif status is not None and status.card is not None and not status.live and not self._asked:
            said += [*result.card(status.card, width), Content("")]
        if done:
            return said + result.exports(self.run, done, self.uses(), self.use_at, width, self.story.proofs)
        return said + [Content.assemble((line, "$text-muted")) for line in wrapped(lines.FORMS, width)]

    def _alert(self) -> str:
        """What the last action did; else a warning that is about exports."""
        if not self.said and self.plan is not None and not self.live:
            note = " ".join(part for part in (self.plan.weights.note, self.plan.warning) if part)
            if note:
                return note
        warning = self.story.warning
        about = warning is not None and warning.code.startswith(("export", "gguf", "llama", "merge"))
        return self.said or (in_full(warning) if warning is not None and about else "")

    # ── Actions ──

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Nothing new can be started while a worker is at work."""
        if action in ("start", "tick", "importance"):
            return not self.live
        if action in ("copy", "where"):
            return bool(self.story.exports)
        return super().check_action(action, parameters)

    def action_start(self) -> None:
        if self.live or self._asked:
            return
        if not self.ticked or self.too_large():
            self.said = "" if self.ticked else "Nothing is ticked yet: Space ticks the line that you are on."
            self.app.bell()
            self.paint()
            return
        recipe, formats, checkpoint = self.known.recipe, self.formats(), self.checkpoint
        importance = self.importance
        if recipe is None:
            return
        self._asked, self.refused, self.said = True, None, ""

        def failed(error: FinetuiError) -> None:
            self._asked, self.refused = False, error
            self.paint()

        def planned(plan: Plan) -> None:
            self.plan = plan
            if (error := plan.no_space) is not None:
                failed(error)
            elif plan.there:
                self._ask_to_replace(plan)
            else:
                self._start(formats, checkpoint, replace=False)

        self.finetui.in_background(
            f"start {self.run.id}",
            lambda: plan_export(self.run, recipe, formats, checkpoint, importance),
            planned,
            failed,
        )
        self.paint()

    def _ask_to_replace(self, plan: Plan) -> None:
        named = ", ".join(f"{FORMATS[one.format].title} ({one.words})" for one in plan.there)
        they = "It" if len(plan.there) == 1 else "They"
        question = (
            f"There already: {named}. {they} would be made again, of {plan.weights.words}, and replaced."
        )

        def answered(key: str | None) -> None:
            if key == "replace":
                self._start(list(plan.formats), self.checkpoint, replace=True)
            else:
                self._asked = False
                self.paint()

        answers = [("keep", "Keep them"), ("replace", "Replace")]
        self.app.push_screen(ConfirmModal("Replace exports?", question, answers), answered)

    def _start(self, formats: list[ExportFormat], checkpoint: str | None, *, replace: bool) -> None:
        importance = self.importance

        def done(_: object) -> None:
            self.feed.look()

        def failed(error: FinetuiError) -> None:
            self._asked, self.refused = False, error
            self.paint()

        self.finetui.shown_run = self.run
        self.finetui.in_background(
            f"export {self.run.id}",
            lambda: export(self.run, formats, checkpoint, importance, replace=replace),
            done,
            failed,
        )
        self.paint()

    def action_talk(self) -> None:
        self.finetui.open_chat(self.run.path)

    def action_where(self) -> None:
        from ..modals.outlets import OutletsModal

        self.app.push_screen(OutletsModal(self.run))

    def action_back(self) -> None:
        self.dismiss(None)

    def explain_content(self) -> Content:
        """The formats, for the help."""
        return lines.explanation()
