"""What a step shows around its form: rail, estimates, the focused field's explanation, and what is in the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from rich.cells import cell_len
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Button, Static

from ...core.errors import FinetuiError
from ...core.fields import FieldSpec
from ...core.fields import field as declared
from ...core.recipe import STEPS
from ..theme import glyphs
from ..widgets import explain
from ..widgets.explain import Brief, Explain
from ..widgets.form import Form
from ..widgets.gauges import LineGauges, SideGauges, outlook
from ..widgets.header import Header
from ..widgets.rail import State as RailState
from ..widgets.rail import StepRail
from ..widgets.text import literal
from ..wizard import NAME, STEP_NAMES, Wizard
from .closing import while_standing

if TYPE_CHECKING:
    from ..app import FinetuiApp


class StepPainting(Screen[None]):
    """The base of `StepScreen`: everything that is painted anew when the draft, the facts or the machine changed."""

    step: ClassVar[str] = ""
    tagline: ClassVar[str] = ""
    enter_words: ClassVar[str] = "Enter continues"
    more_keys: ClassVar[tuple[str, ...]] = ("step.code",)
    """Ids of bindings that the footer has no room for; they are told beside Continue."""

    def __init__(self) -> None:
        super().__init__()
        self._explained: str = ""
        self._shown: dict[str, object] = {}
        self._refused: Mapping[str, str] = {}

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    @property
    def wizard(self) -> Wizard:
        """The shared state."""
        return self.finetui.wizard

    def refresh_facts(self) -> None:
        """Show what is known beside the form."""

    def trouble(self) -> FinetuiError | None:
        """An error that blocks the way on, besides wrong fields."""
        return self.wizard.trouble(self.step)

    @property
    def form(self) -> Form:
        return self.query_one(Form)

    def once(self, place: str, now: object, show: Callable[[], object]) -> None:
        """Calls `show` only when `now` differs from what `place` shows already: over SSH, nothing is sent twice."""
        if self._shown.get(place, self) != now:
            self._shown[place] = now
            show()

    @while_standing
    def paint(self) -> None:
        """Show the present state everywhere around the form."""
        wizard = self.wizard
        header, rail, machine = (
            self.query_one(Header),
            self.query_one(StepRail),
            self.finetui.looking.machine_line(),
        )
        place = f"step {STEPS.index(self.step) + 1} of {len(STEPS)}"
        self.once("place", wizard.draft.name, lambda: header.show_place(wizard.draft.name, place))
        shown = (machine.name, f"{machine.used_gb or 0:.1f}") if machine is not None else None
        self.once("machine", shown, lambda: header.show_machine(machine))
        refusals = wizard.refused()
        for step in STEPS:
            summary = wizard.summary(step)
            trouble = bool(wizard.problems(step)) or wizard.trouble(step) is not None
            trouble = trouble or any(path.startswith(f"{step}.") for path in refusals)
            done = step in wizard.visited and STEPS.index(step) < STEPS.index(self.step)
            state: RailState = "trouble" if trouble else "done" if done else "todo"
            self.once(f"summary {step}", summary, partial(rail.set_summary, step, summary))
            self.once(f"state {step}", state, partial(rail.set_state, step, state))
        changed = set(wizard.changed(self.step))
        self.once("title", len(changed), lambda: self._paint_title(len(changed)))
        folded = len({spec.path for spec in self.form.advanced} & changed)
        self.once("folded", folded, lambda: self.form.count_changed(folded))
        now = outlook(wizard)
        self.once(
            "gauges",
            now,
            lambda: (self.query_one(SideGauges).show(now), self.query_one(LineGauges).show(now)),
        )
        refused = {path: error.what for path, error in refusals.items() if self.form.has(path)}
        self.once("refused", refused, lambda: self._show_refused(refused))
        for path, words in self.notes().items():
            if self.form.has(path):
                self.once(f"note {path}", words, partial(self.form.row(path).note, words))
        self.refresh_facts()
        self._paint_problem()
        self._paint_explanation()

    def _show_refused(self, refused: Mapping[str, str]) -> None:
        """Mark the fields that cannot stay as they are, besides those whose value is wrong in itself."""
        self._refused = refused
        for spec in (*self.form.basic, *self.form.advanced):
            self._show_error(spec.path, self.wizard.problem(spec.path))

    def _paint_title(self, changed: int) -> None:
        note = f" {glyphs().middot} {changed} changed" if changed else ""
        title = [(STEP_NAMES[self.step], "bold $accent"), ("   ", ""), (self.tagline + note, "$text-muted")]
        self.query_one("#step-title", Static).update(Content.assemble(*title))

    def notes(self) -> dict[str, str]:
        """What values mean here, by field path; shown beside the control."""
        return {}

    def fact(self, path: str) -> str:
        """A sentence on the field at `path` that holds for this model, data and machine; shown with its explanation."""
        return ""

    @while_standing
    def _paint_explanation(self) -> None:
        path = self._explained
        if not path:
            return
        spec = NAME if path == "name" else declared(path)
        value, fact = self.wizard.value(path), self.fact(path)
        self.once("explanation", (path, value, fact), lambda: self._explain(spec, value, fact))

    def _explain(self, spec: FieldSpec, value: Any, fact: str) -> None:
        self.query_one(Explain).show(explain.full(spec, value, fact))
        levels = (explain.full, explain.compact, explain.brief)
        under = (*(level(spec, value, fact) for level in levels), explain.briefest(spec))
        self.query_one(Brief).offer(under)
        self.call_after_refresh(self.fit)

    def used_rows(self) -> int:
        """Rows that the main column needs."""
        main = self.query_one("#main", VerticalScroll)
        return max(
            (c.virtual_region.bottom + c.styles.margin.bottom for c in main.children if c.display), default=0
        )

    @while_standing
    def fit(self) -> None:
        """The explanation under the form takes the room that the form leaves: all of it, or its first two lines."""
        box, main = self.query_one(Brief), self.query_one("#main", VerticalScroll)
        if not box.display:
            return
        room = main.size.height + box.outer_size.height - self.used_rows() - box.gutter.height - 1
        box.fit(room, least=1 if self.size.height < 20 else 2, width=max(10, main.size.width - 2))

    def explain_content(self) -> Content | None:
        """The full explanation of the field in focus, for the help."""
        if not self._explained:
            return None
        spec = NAME if self._explained == "name" else declared(self._explained)
        return explain.full(spec, self.wizard.value(self._explained), self.fact(self._explained))

    @while_standing
    def explain_field(self, path: str) -> None:
        """Explain the field at `path`."""
        self._explained = path
        self._paint_explanation()
        self._paint_problem()

    def blocking(self) -> tuple[str, str] | None:
        """What is in the way: the field's path (or empty) and a sentence."""
        wrong = self.wizard.problems(self.step)
        if wrong:
            path, problem = next((w for w in wrong if w[0] == self._explained), wrong[0])
            return path, self.wizard.sentence(path, problem)
        trouble = self.trouble()
        return ("", trouble.what) if trouble is not None else None

    @while_standing
    def _paint_problem(self) -> None:
        marks = glyphs()
        block = self.blocking()
        button = self.query_one("#continue", Button)
        button.set_class(block is not None, "-blocked")
        if block is not None:
            text = Content.assemble((f"{marks.cross} ", "bold $error"), (literal(block[1]), "$text-error"))
        elif self.wizard.said:
            text = Content.assemble(
                (f"{marks.check} ", "$success"), (literal(self.wizard.said), "$foreground")
            )
        else:
            text = self.hint(self.enter_words, f"{marks.down} next field")
        self.once("problem", text, lambda: self.query_one("#problem", Static).update(text))

    def hint(self, *words: str) -> Content:
        """The keys that stand nowhere else, and `words` for who knows no key yet as far as there is room."""
        active = {one.binding.id: one.binding for one in self.active_bindings.values()}
        keys = [
            f"{self.app.get_key_display(active[name])} {active[name].description.lower()}"
            for name in self.more_keys
            if name in active
        ]
        room = self.query_one("#problem", Static).content_size.width or self.size.width
        parts, dot = [*words, *keys], f" {glyphs().middot} "
        for _ in words:
            if cell_len(dot.join(parts)) > room:
                parts.pop(max(0, len(parts) - len(keys) - 1))
        return Content.styled(dot.join(parts), "$text-disabled")

    @while_standing
    def _show_error(self, path: str, error: str | None) -> None:
        if self.form.has(path):
            self.form.row(path).error(error or self._refused.get(path))
