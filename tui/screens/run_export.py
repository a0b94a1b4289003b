"""The export of a run that has learned something: which formats, how large, and what to do with each next."""

from __future__ import annotations

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import OptionList

from ...core import export_budget
from ...core.errors import FinetuiError
from ...core.export import FORMATS, estimated_bytes
from ...core.export_budget import Budget
from ...core.export_plan import Plan
from ...core.recipe import ExportFormat
from ...core.runs.chosen import WORDS
from ...core.runs.store import RunFolder
from ...core.text import bytes_words, one_line
from ..modals.confirm import ConfirmModal
from ..theme import glyphs
from ..widgets.bars import ProgressLine
from ..widgets.dashboard import doing, result
from ..widgets.dashboard import formats as lines
from ..widgets.dashboard.alert import in_full
from ..widgets.dashboard.background import Known, disk_free_bytes, export, plan_export
from ..widgets.dashboard.block import Block
from ..widgets.dashboard.feed import News
from ..widgets.dashboard.lines import wrapped
from ..widgets.footer import Footer
from ..widgets.header import Header
from ..widgets.menu import Item, Menu
from ..widgets.text import literal
from .following import FollowingScreen


class RunExportScreen(FollowingScreen):
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
        self.ticked: set[ExportFormat] = set()
        self.free_bytes: int | None = None
        self.refused: FinetuiError | None = None
        self._chosen = False
        self._asked = False
        self._was_live = False
        self._shown: tuple[Item, ...] = ()
        self.unfolded = False
        self.checkpoint: str | None = None
        """Whose weights, as the person chose; None is what the recipe says."""
        self.plan: Plan | None = None
        """Of what is ticked, as it was last looked at."""

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

    def on_mount(self) -> None:
        self._look_at_disk()

    # ── What it would take ──

    @property
    def order(self) -> tuple[ExportFormat, ...]:
        """The formats in sight: the common ones, what is ticked and what is there; all of them unfolded."""
        return tuple(
            f
            for f, info in FORMATS.items()
            if self.unfolded or info.common or f in self.ticked or f in self.story.exports
        )

    def at(self) -> ExportFormat | None:
        """The format under the cursor; None on the line that unfolds."""
        return next((f for f in self.order if f == self.query_one("#formats", Menu).chosen), None)

    def look_at_plan(self) -> None:
        """Looks, off the event loop, whose weights would be exported and what that takes."""
        recipe, formats, checkpoint = self.known.recipe, self._formats(), self.checkpoint
        if recipe is None or self.live:
            return

        def seen(plan: Plan) -> None:
            self.plan, self.free_bytes = plan, plan.free_disk_bytes
            self.paint()

        def failed(error: FinetuiError) -> None:
            self.plan = None
            if checkpoint is not None:  # the person's own choice cannot be had
                self.checkpoint, self.said = None, f"{error.what} {error.why} {error.fix}"
            self.paint()

        self.finetui.in_background(
            f"plan {self.run.id}", lambda: plan_export(self.run, recipe, formats, checkpoint), seen, failed
        )

    def _formats(self) -> list[ExportFormat]:
        return [f for f in FORMATS if f in self.ticked]

    def _look_at_disk(self) -> None:
        def seen(free: int | None) -> None:
            self.free_bytes = free
            self.paint()

        self.finetui.in_background(
            f"disk {self.run.id}", lambda: disk_free_bytes(self.run.path), seen, lambda _: None
        )

    # ── News ──

    def take(self, news: News) -> None:
        if self.caught_up and not self._chosen and self.known.recipe is not None:
            self._choose_first()
            self.look_at_plan()
        if self.live != self._was_live:
            self._was_live, self._asked = self.live, False
            self.refresh_bindings()
            if not self.live:
                self.said = ""
                self.ticked -= set(self.story.exports)
                self._look_at_disk()
                self.look_at_plan()

    def _choose_first(self) -> None:
        """A first tick: the recipe's formats that are not there yet, else the small GGUF."""
        self._chosen = True
        recipe = self.known.recipe
        wanted = recipe.export.formats if recipe is not None else ()
        missing: list[ExportFormat] = [f for f in (*wanted, "gguf_q8_0") if f not in self.story.exports]
        if missing:
            self.ticked.add(missing[0])
        order = self.order
        at = missing[0] if missing else next((f for f in order if f not in self.story.exports), order[0])
        self.query_one("#formats", Menu).show(self.items())
        self.query_one("#formats", Menu).highlight(at)

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
        """One line for each format in sight, and one that unfolds the others."""
        expected: dict[ExportFormat, int | None] = {
            format: self.expected_bytes(format) for format in self.order
        }
        return lines.items(self.order, self.ticked, self.story.exports, expected, self.unfolded)

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
        items = self.items()
        menu = self.query_one("#formats", Menu)
        if items != self._shown:
            self._shown = items
            menu.show(items)
            if menu.highlighted is None:
                menu.highlighted = 0
        self._paint_about()
        self.query_one("#export-total", Block).show([self._total()])
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

    def _paint_about(self) -> None:
        """What the format under the cursor is, and what it costs."""
        words = literal(lines.about(self.at()))
        self.query_one("#export-about", Block).show([Content.assemble((words, "$text-muted"))])

    @on(OptionList.OptionHighlighted, "#formats")
    def _moved(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        self._paint_about()

    def _total(self) -> Content:
        return lines.total(
            len(self._formats()), self._need_bytes(), self._budget(), self.free_bytes, self._too_large()
        )

    def _budget(self) -> Budget | None:
        """What the ticked formats take, from what is known of the model."""
        recipe = self.known.recipe
        if recipe is None:
            return None
        return export_budget.of_facts(recipe, self.known.facts, self._formats())

    def _need_bytes(self) -> int:
        budget = self._budget()
        if budget is None:
            return 0
        return budget.disk_bytes or sum(need.disk_bytes or 0 for need in budget.needs)

    def _too_large(self) -> bool:
        return self.free_bytes is not None and self._need_bytes() > self.free_bytes

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
        if action in ("start", "tick"):
            return not self.live
        if action in ("copy", "where"):
            return bool(self.story.exports)
        return super().check_action(action, parameters)

    def action_tick(self) -> None:
        at = self.at()
        if at is not None:
            self.ticked.symmetric_difference_update((at,))
        else:
            self.unfolded = not self.unfolded
        self.said = ""
        self.paint()
        self.look_at_plan()

    def action_weights(self) -> None:
        """The next choice of weights: what the run ended with, the best, the last."""
        recipe = self.known.recipe
        if self.live or recipe is None:
            return
        now = self.checkpoint or recipe.export.checkpoint
        at = WORDS.index(now) if now in WORDS else -1
        self.checkpoint, self.said = WORDS[(at + 1) % len(WORDS)], ""
        self.look_at_plan()

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
        recipe, formats, checkpoint = self.known.recipe, self._formats(), self.checkpoint
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
            lambda: plan_export(self.run, recipe, formats, checkpoint),
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
        def done(_: object) -> None:
            self.feed.look()

        def failed(error: FinetuiError) -> None:
            self._asked, self.refused = False, error
            self.paint()

        self.finetui.shown_run = self.run
        self.finetui.in_background(
            f"export {self.run.id}",
            lambda: export(self.run, formats, checkpoint, replace=replace),
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
