"""The base of the five steps: rail, form, the explanation of the focused field, estimates, and the way on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Button, Input, Static

from ...core.fields import FieldSpec
from ...core.fields import field as declared
from ...core.fields import fields as declared_fields
from ...core.history import Change
from ...core.recipe import STEPS
from ..theme import glyphs
from ..widgets.explain import Brief, Explain
from ..widgets.footer import Footer
from ..widgets.form import FieldRow, Fold, Form, value_words
from ..widgets.gauges import LineGauges, SideGauges
from ..widgets.header import Header
from ..widgets.page import Page
from ..widgets.rail import StepRail
from ..widgets.text import literal
from ..wizard import NAME, STEP_NAMES, following, preceding
from .closing import while_standing
from .step_painting import StepPainting


class StepScreen(StepPainting):
    """One step of the wizard.

    A subclass sets `step`, `tagline`, `basic` (paths of the fields in sight; the step's other fields are folded under
    Advanced) and may override `compose_before`, `compose_after` (widgets above and below the form), `refresh_facts`
    (called when the draft, the facts or the machine changed), `trouble` (an error that blocks the way on) and `proceed`
    (what Continue does).
    """

    CSS_PATH = ["step.tcss"]
    AUTO_FOCUS = ""
    basic: ClassVar[tuple[str, ...]] = ()
    continue_label: ClassVar[str] = "Continue"
    footer_first: ClassVar[tuple[str, ...]] = ("step.next", "step.back", "step.advanced", "step.code")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+n", "next", "Next", id="step.next", tooltip="Go on to the next step"),
        Binding("enter", "next", "Next", show=False, id="step.enter"),
        Binding("escape", "back", "Back", id="step.back", tooltip="Back to the step before; nothing is lost"),
        Binding("down", "move(1)", "Next field", show=False, id="step.down"),
        Binding("up", "move(-1)", "Previous field", show=False, id="step.up"),
        Binding("pagedown", "page(1)", "Scroll down", show=False, id="step.pagedown"),
        Binding("pageup", "page(-1)", "Scroll up", show=False, id="step.pageup"),
        Binding(
            "ctrl+t", "advanced", "Advanced", id="step.advanced", tooltip="Open or close the advanced fields"
        ),
        Binding(
            "ctrl+r", "reset", "Default", id="step.reset", tooltip="Give the focused field its default value"
        ),
        Binding(
            "ctrl+underscore,ctrl+slash",
            "undo",
            "Undo",
            key_display="^_",
            id="step.undo",
            tooltip="Take back the last change, of any step",
        ),
        Binding(
            "f9",
            "code",
            "As code",
            id="step.code",
            tooltip="The recipe's YAML and the plain Unsloth script: read, copy, save",
        ),
        Binding("ctrl+y", "redo", "Redo", show=False, id="step.redo", tooltip="Make the change again"),
    ]

    # ── What a subclass fills in ──

    def compose_before(self) -> ComposeResult:
        """Widgets above the form."""
        yield from ()

    def compose_after(self) -> ComposeResult:
        """Widgets below the form."""
        yield from ()

    def compose_beside(self) -> ComposeResult:
        """Widgets under the form that stay in sight when it scrolls."""
        yield from ()

    def specs(self) -> tuple[list[FieldSpec], list[FieldSpec]]:
        """The fields of the form: in sight, and folded away."""
        basic = [NAME if path == "name" else declared(path) for path in self.basic]
        return basic, [
            spec for spec in declared_fields(self.step) if spec.path not in self.basic + self.hidden
        ]

    hidden: ClassVar[tuple[str, ...]] = ()
    """Paths of this step that the form leaves to other widgets."""

    def proceed(self) -> None:
        """Go on; called when nothing is wrong."""
        step = following(self.step)
        if step is not None:
            self.finetui.go(step)

    # ── Layout ──

    def compose(self) -> ComposeResult:
        basic, advanced = self.specs()
        values = {spec.path: self.wizard.value(spec.path) for spec in (*basic, *advanced)}
        yield Header()
        with Horizontal(classes="wizard-body"):
            yield StepRail([(step, STEP_NAMES[step]) for step in STEPS], current=self.step)
            with Vertical(id="work"):
                with Page(id="main", can_focus=False):
                    yield Static(id="step-title", markup=False)
                    yield from self.compose_before()
                    yield Form(basic, advanced, values, self.step in self.wizard.unfolded)
                    yield from self.compose_after()
                yield from self.compose_beside()
                yield Brief(id="brief")
                with Horizontal(id="estimates"):
                    yield LineGauges(id="line-gauges")
                with Horizontal(id="foot"):
                    yield Static(id="problem", markup=False)
                    yield Button(
                        Content(f"{self.continue_label} {glyphs().chevron}"), id="continue", compact=True
                    )
            with Vertical(id="side"):
                yield Explain()
                yield SideGauges()
        yield Footer(first=self.footer_first)

    def on_mount(self) -> None:
        self.wizard.visited.add(self.step)
        self.finetui.changed.subscribe(self, self._changed)
        for spec in (*self.form.basic, *self.form.advanced):
            self.form.row(spec.path).error(self.wizard.problem(spec.path))
        self.watch(self.query_one("#main"), "virtual_size", self._outgrown, init=False)
        self.call_after_refresh(self.focus_first)
        self.paint()

    @while_standing
    def focus_first(self) -> None:
        """Give the focus to the field that had it, or to the first."""
        path = self.wizard.focused.get(self.step, "")
        if path and self.form.has(path):
            self.form.focus_field(path)
        else:
            controls = self.query(
                "#main .step-control, #main TextControl, #main ChoiceControl, #main ChecklistControl"
            )
            if controls:
                controls.first().focus()

    def _outgrown(self) -> None:
        """The form has grown or shrunk: what is under it takes what is left."""
        self.call_after_refresh(self.fit)

    @while_standing
    def _changed(self, _: object) -> None:
        self.paint()

    # ── Events ──

    @on(Form.Changed)
    def _form_changed(self, event: Form.Changed) -> None:
        event.stop()
        self.set_value(event.path, event.value)

    def set_value(self, path: str, value: Any) -> str | None:
        """Puts a raw value into the draft and shows what follows from it. Returns what is wrong, or None."""
        before = self.wizard.value(path)
        error = self.wizard.set(path, value)
        if self.wizard.value(path) != before:  # an input that is shown anew tells its text too
            self.wizard.said = ""
        self._show_error(path, error)
        self.finetui.draft_changed(path)
        return error

    @on(Form.Focused)
    def _form_focused(self, event: Form.Focused) -> None:
        event.stop()
        if event.path != self._explained:
            self.wizard.history.close()
        self.wizard.focused[self.step] = event.path
        self.explain_field(event.path)

    @on(Fold.Turned)
    def _folded(self, event: Fold.Turned) -> None:
        (self.wizard.unfolded.add if event.opened else self.wizard.unfolded.discard)(self.step)
        self.call_after_refresh(self.fit)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_next()

    @on(Button.Pressed, "#continue")
    def _pressed(self, event: Button.Pressed) -> None:
        event.stop()
        self.action_next()

    @on(StepRail.Chosen)
    def _step_chosen(self, event: StepRail.Chosen) -> None:
        event.stop()
        if event.step != self.step:
            self.finetui.go(event.step)

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self.fit)
        self.call_after_refresh(self._keep_focus_in_sight)
        self.call_after_refresh(self._paint_problem)

    @while_standing
    def _keep_focus_in_sight(self) -> None:
        if self.focused is not None:
            self.focused.scroll_visible(animate=False)

    # ── Actions ──

    def action_next(self) -> None:
        block = self.blocking()
        if block is None:
            self.wizard.said = ""
            self.proceed()
            return
        path, _ = block
        if path and self.form.has(path):
            self.form.focus_field(path)
            self.explain_field(path)
        elif not path:
            trouble = self.trouble()
            if trouble is not None:
                self.finetui.show_error(trouble)
        self.app.bell()

    def action_back(self) -> None:
        self.wizard.said = ""
        step = preceding(self.step)
        if step is None:
            self.finetui.go_home()
        else:
            self.finetui.go(step)

    def action_move(self, by: int) -> None:
        stops = self._stops()
        if self.focused in stops:
            index = max(0, min(len(stops) - 1, stops.index(self.focused) + by))
            stops[index].focus()
        elif stops:
            stops[0].focus()

    def _stops(self) -> list[Widget]:
        """Where the focus goes with up and down: the controls, then Continue."""
        inside = [w for w in self.focus_chain if any(node.id in ("main", "foot") for node in w.ancestors)]
        return inside

    def action_page(self, by: int) -> None:
        main = self.query_one("#main", VerticalScroll)
        (main.scroll_page_down if by > 0 else main.scroll_page_up)(animate=False)

    def action_advanced(self) -> None:
        for fold in self.query(Fold):
            fold.action_fold()
            if fold.opened:
                first = self.query(".folded FieldRow").results(FieldRow)
                row = next(iter(first), None)
                if row is not None:
                    row.field_control.focus()
            else:
                fold.focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leaves out of the footer what this step has not."""
        if action == "advanced" and self.is_mounted:
            return bool(self.query(Fold))
        return super().check_action(action, parameters)

    def action_code(self) -> None:
        """Show what is on the form as YAML and as a plain script."""
        from ..modals.code import CodeModal

        self.app.push_screen(CodeModal(self.wizard))

    def action_undo(self) -> None:
        """Take back the last change, and say which it was."""
        self._changed_back(self.wizard.undo(), "Undone", back=True)

    def action_redo(self) -> None:
        """Make the change again that was undone last."""
        self._changed_back(self.wizard.redo(), "Done again", back=False)

    def _changed_back(self, change: Change | None, title: str, back: bool) -> None:
        if change is None:
            self.say("Nothing to undo." if back else "Nothing to do again.")
            self.app.bell()
            return
        self.say(f"{title}: {change_words(change, back)}")
        self.show_again(change.paths)

    def say(self, words: str) -> None:
        """Say in the line at the bottom what was done, until something else is."""
        self.wizard.said = words
        self._paint_problem()

    def show_again(self, paths: Sequence[str]) -> None:
        """Show fields whose values were set elsewhere; on the step that has them where none is here."""
        for path in paths:
            self.finetui.draft_changed(path)
        here = [path for path in paths if self.form.has(path)]
        elsewhere = [path.partition(".")[0] for path in paths if path != "name" and path not in here]
        if paths and not here:
            step = "training" if paths[0] == "name" else elsewhere[0]
            self.wizard.focused[step] = paths[0]
            self.finetui.go(step)
            return
        for path in here:
            self.form.row(path).show(self.wizard.value(path))
            self._show_error(path, self.wizard.problem(path))
        if len(here) == 1:
            self.form.focus_field(here[0])

    def action_reset(self) -> None:
        path = self._explained
        if path and self.form.has(path):
            spec = NAME if path == "name" else declared(path)
            self.wizard.history.close()
            self.form.row(path).show(spec.default)
            self.set_value(path, spec.default)
            self.wizard.history.close()


def change_words(change: Change, back: bool) -> str:
    """A change in words: `Rank 32 → 16`, or `preset thorough (9 settings)`."""
    if change.label:
        return f"{change.label} ({len(change.paths)} setting{'' if len(change.paths) == 1 else 's'})"
    old, new = (change.after, change.before) if back else (change.before, change.after)
    words = []
    for path in change.paths:
        title = NAME.title if path == "name" else declared(path).title
        arrow = glyphs().right
        words.append(
            f"{title} {literal(value_words(path, old[path]), 40)} {arrow} {literal(value_words(path, new[path]), 40)}"
        )
    return "; ".join(words)
