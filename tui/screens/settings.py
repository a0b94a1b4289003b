"""What the LoRA and the training step share: settings that explain themselves, presets, and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from ...core import advice, fit, outcome
from ...core.errors import FinetuiError
from ...core.fields import field as declared
from ...core.nearest import nearest
from ...core.recipe import Recipe
from ..widgets.form import Form, value_words
from ..widgets.here import Here, HerePane, content, differing
from ..widgets.text import literal
from .closing import while_standing
from .step import StepScreen


class SettingsScreen(StepScreen):
    """A step whose focused field says what finetui would choose, because of what, and what changing it does."""

    footer_first: ClassVar[tuple[str, ...]] = ("step.next", "step.presets", "step.fit", "step.take")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "ctrl+g",
            "take",
            "Take advice",
            id="step.take",
            tooltip="Give the field the value that finetui would choose",
        ),
        Binding(
            "ctrl+f",
            "fit",
            "Fit",
            priority=True,
            id="step.fit",
            tooltip="Choose precision, packing, batch and checkpointing: the fastest that fits this machine",
        ),
        Binding(
            "ctrl+l",
            "presets",
            "Presets",
            id="step.presets",
            tooltip="Presets: take one, compare, keep your own",
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._began: tuple[str, Any, outcome.Outcome | None] = ("", None, None)

    def compose_beside(self) -> ComposeResult:
        yield HerePane()

    @while_standing
    def explain_field(self, path: str) -> None:
        if path != self._began[0]:
            self._began = (path, self.wizard.value(path), self.wizard.outcome())
        super().explain_field(path)

    def refresh_facts(self) -> None:
        self._paint_here()

    @while_standing
    def _paint_explanation(self) -> None:
        self._paint_here()
        super()._paint_explanation()

    @while_standing
    def _paint_here(self) -> None:
        found, tall = self.here(), self.size.height >= 30
        pane = self.query_one(HerePane)
        pane.display = found is not None
        if found is not None:
            self.once(
                "here",
                (found, tall),
                lambda: (pane.update(content(found, tall)), self.call_after_refresh(self.fit)),
            )

    def here(self) -> Here | None:
        """What is said of the focused field; a few milliseconds of arithmetic."""
        path = self._explained
        if not path or path == "name":
            return None
        wizard = self.wizard
        value, wrong = wizard.value(path), wizard.problem(path)
        if wrong:
            return Here(path, value, wizard.sentence(path, wrong), nearest(declared(path), value))
        recipe = wizard.recipe()
        if recipe is None:
            return Here(path, value)
        situation = wizard.situation()
        refused = wizard.refused().get(path)
        if refused is not None:
            found = advice.advise(path, recipe, situation)
            words = " ".join(part for part in (refused.what, refused.why, refused.fix) if part)
            return Here(path, value, words, found.value if found is not None else declared(path).default)
        now = outcome.outcome(recipe, situation)
        began_path, began, then = self._began
        since = None
        if began_path == path and began != value and then is not None:
            since = (began, outcome.delta(then, now))
        return Here(
            path,
            value,
            advice=advice.advise(path, recipe, situation),
            since=since,
            others=self._others(recipe, situation, path, value, now),
        )

    def _others(
        self, recipe: Recipe, situation: outcome.Situation, path: str, value: Any, now: outcome.Outcome
    ) -> tuple[tuple[object, outcome.Delta], ...]:
        found: list[tuple[object, outcome.Delta]] = []
        for other in advice.neighbours(path, value):
            changed = outcome.with_values(recipe, {path: other})
            if changed is not None:
                found.append((other, outcome.delta(now, outcome.outcome(changed, situation))))
        return differing(found)

    def action_take(self) -> None:
        """Give the focused field the value that finetui would choose; where it is wrong, the nearest that is right."""
        found = self.here()
        if found is None or (not found.wrong and found.advice is None):
            self.app.bell()
            return
        value = found.nearest if found.wrong else found.advice.value if found.advice else None
        self.wizard.history.close()
        self.query_one(Form).row(found.path).show(value)
        self.set_value(found.path, value)
        self.wizard.history.close()

    def action_fit(self) -> None:
        """Take the fastest settings that fit this machine, as one change; says why."""
        recipe, situation = self.wizard.recipe(), self.wizard.situation()
        if recipe is None or situation.facts is None or situation.machine is None:
            self.notify("Model, machine and settings must be known first.", title="Fit", markup=False)
            return
        try:
            found = fit.fit(recipe, situation.facts, situation.machine, situation.lengths)
        except FinetuiError as error:
            self.finetui.show_error(error)
            return
        changed = self.wizard.apply(dict(found.changes), "fit to this machine")
        self.show_again(changed)
        lines = [
            f"{declared(c.path).title} {value_words(c.path, c.value)}: {c.because}"
            for c in found.choices
            if c.changed
        ]
        if not lines and not found.remarks:
            self.say("The settings are the fastest that fit already")
            return
        self.say(f"Fitted to this machine: {len(changed)} changed" if changed else "Fits as it is")
        self._tell_fit([*lines, *found.remarks], bool(changed))

    def _tell_fit(self, reasons: Sequence[str], changed: bool) -> None:
        """Why, until it is read; what was changed can be taken back from there."""
        from ..modals.confirm import ConfirmModal

        app = self.finetui

        def answered(answer: str | None) -> None:
            if answer == "undo" and isinstance(app.screen, StepScreen):
                app.screen.action_undo()

        answers = [("keep", "Good"), *([("undo", "Take it back")] if changed else [])]
        app.push_screen(
            ConfirmModal("Fit to this machine", "\n".join(map(literal, reasons)), answers), answered
        )

    def action_presets(self) -> None:
        """Show the presets over this step."""
        from ..modals.presets import PresetsModal

        self.app.push_screen(PresetsModal(self.wizard), self._preset_taken)

    @while_standing
    def _preset_taken(self, taken: tuple[str, dict[str, Any]] | None) -> None:
        if taken is None:
            return
        name, values = taken
        changed = self.wizard.apply(values, f"preset {name}")
        self.wizard.preset = (name, values)
        self.show_again(changed)
        count = len(changed)
        what = (
            f"{count} setting{'' if count == 1 else 's'} changed, ^_ takes it back"
            if count
            else "set so already"
        )
        self.say(f"Preset {name}: {what}")
