"""The formats that a run can be exported in: the lines to tick, whose weights, and what they would take."""

from __future__ import annotations

from collections.abc import Sequence

from textual import on
from textual.content import Content
from textual.widgets import OptionList

from ...core import export_budget
from ...core.errors import FinetuiError
from ...core.export import FORMATS, estimated_bytes, weighed, with_importance
from ...core.export_budget import Budget
from ...core.export_plan import Plan
from ...core.recipe import ExportFormat
from ...core.runs.chosen import WORDS
from ...core.runs.store import RunFolder
from ..widgets.dashboard import formats as lines
from ..widgets.dashboard.background import Known, disk_free_bytes, plan_export
from ..widgets.dashboard.block import Block
from ..widgets.menu import Item, Menu
from ..widgets.text import literal
from .following import FollowingScreen


class FormatsScreen(FollowingScreen):
    """Keeps what is ticked, and looks off the event loop at what that takes.

    A subclass composes a Menu `formats` and the Blocks `export-about` and `export-total`.
    """

    def __init__(self, run: RunFolder, known: Known | None = None) -> None:
        super().__init__(run, known)
        self.ticked: set[ExportFormat] = set()
        self.chosen = False
        """Whether the first tick was made."""
        self.unfolded = False
        self.checkpoint: str | None = None
        """Whose weights, as the person chose; None is what the recipe says."""
        self.importance: bool | None = None
        """Whether quantizations get an importance matrix, as the person chose; None is what the recipe says."""
        self.plan: Plan | None = None
        """Of what is ticked, as it was last looked at."""
        self.free_bytes: int | None = None
        self._shown: tuple[Item, ...] = ()

    def on_mount(self) -> None:
        self.look_at_disk()

    # ── Which formats, and whose weights ──

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
        recipe, formats, checkpoint = self.known.recipe, self.formats(), self.checkpoint
        importance = self.importance
        if recipe is None or self.live:
            return

        def seen(plan: Plan) -> None:
            self.plan, self.free_bytes = plan, plan.free_disk_bytes
            self.paint()

        def failed(error: FinetuiError) -> None:
            self.plan = None
            if error.code == "export-checkpoint":  # the person's own choice cannot be had
                self.checkpoint = None
            if checkpoint is not None or error.code != "export-nothing":
                self.said = f"{error.what} {error.why} {error.fix}"
            self.paint()

        self.finetui.in_background(
            f"plan {self.run.id}",
            lambda: plan_export(self.run, recipe, formats, checkpoint, importance),
            seen,
            failed,
        )

    def formats(self) -> list[ExportFormat]:
        """What is ticked, in the order of the formats."""
        return [f for f in FORMATS if f in self.ticked]

    def look_at_disk(self) -> None:
        """Looks, off the event loop, how much room there is."""

        def seen(free: int | None) -> None:
            self.free_bytes = free
            self.paint()

        self.finetui.in_background(
            f"disk {self.run.id}", lambda: disk_free_bytes(self.run.path), seen, lambda _: None
        )

    def choose_first(self) -> None:
        """A first tick: the recipe's formats that are not there yet, else the small GGUF."""
        self.chosen = True
        recipe = self.known.recipe
        wanted = recipe.export.formats if recipe is not None else ()
        missing: list[ExportFormat] = [f for f in (*wanted, "gguf_q8_0") if f not in self.story.exports]
        if missing:
            self.ticked.add(missing[0])
        order = self.order
        at = missing[0] if missing else next((f for f in order if f not in self.story.exports), order[0])
        self.query_one("#formats", Menu).show(self.items())
        self.query_one("#formats", Menu).highlight(at)

    # ── What they take ──

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

    def _total(self) -> Content:
        return lines.total(
            len(self.formats()),
            self._need_bytes(),
            self._budget(self.formats()),
            self.free_bytes,
            self.too_large(),
            any(weighed(format, self.wants_importance) for format in self.formats()),
        )

    def _budget(self, formats: Sequence[ExportFormat]) -> Budget | None:
        """What `formats` take, from what is known of the model."""
        recipe = self.known.recipe
        if recipe is None:
            return None
        recipe = with_importance(recipe, self.importance)
        return export_budget.of_facts(recipe, self.known.facts, formats)

    def _need_bytes(self) -> int:
        budget = self._budget(self.formats())
        if budget is None:
            return 0
        return budget.disk_bytes or sum(need.disk_bytes or 0 for need in budget.needs)

    def too_large(self) -> bool:
        """Whether what is ticked is known not to fit on the disk."""
        return self.free_bytes is not None and self._need_bytes() > self.free_bytes

    # ── Painting ──

    def paint_formats(self) -> None:
        """Shows the lines, what the one under the cursor is, and what the ticked ones take together."""
        items = self.items()
        menu = self.query_one("#formats", Menu)
        if items != self._shown:
            self._shown = items
            menu.show(items)
            if menu.highlighted is None:
                menu.highlighted = 0
        self._paint_about()
        self.query_one("#export-total", Block).show([self._total()])

    def _paint_about(self) -> None:
        """What the format under the cursor is, and what it costs."""
        at, on = self.at(), self.wants_importance
        words = lines.about(at, on)
        if at is not None and weighed(at, True) and not FORMATS[at].needs_matrix:
            words += " i makes it without." if on else " i makes it with an importance matrix."
        budget = self._budget([at]) if at is not None else None
        if budget is not None:
            words += lines.on_gpu(budget.needs[0], self.finetui.looking.has_gpu)
        self.query_one("#export-about", Block).show([Content.assemble((literal(words), "$text-muted"))])

    @on(OptionList.OptionHighlighted, "#formats")
    def _moved(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        self._paint_about()

    # ── Actions ──

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

    @property
    def wants_importance(self) -> bool:
        """Whether quantizations that can do without an importance matrix get one."""
        recipe = self.known.recipe
        return self.importance if self.importance is not None else bool(recipe and recipe.export.importance)

    def action_importance(self) -> None:
        """Turns the importance matrix on or off."""
        if self.live or self.known.recipe is None:
            return
        self.importance = not self.wants_importance
        self.said = lines.importance_words(self.wants_importance)
        self.paint()
        self.look_at_plan()

    @on(OptionList.OptionSelected, "#formats")
    def _clicked(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.action_tick()
