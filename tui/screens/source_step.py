"""What the model and the dataset step share: a source that is picked, and looked at."""

from __future__ import annotations

from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult

from ..widgets.source import SourceKind, SourcePicker
from .closing import while_standing
from .step import StepScreen


class SourceStepScreen(StepScreen):
    """A step whose first field is a source. A subclass sets `source_path`, `source_title` and `kinds`."""

    source_path: ClassVar[str] = ""
    source_title: ClassVar[str] = ""

    def kinds(self) -> tuple[SourceKind, ...]:
        """The kinds of source, in order."""
        raise NotImplementedError

    def kind_of(self, source: str) -> str:
        """The kind that `source` is of."""
        raise NotImplementedError

    def compose_before(self) -> ComposeResult:
        source = str(self.wizard.value(self.source_path) or "")
        kind = self.wizard.kinds.get(self.step) or self.kind_of(source)
        values = {k: text for (step, k), text in self.wizard.sources.items() if step == self.step}
        if source or not values.get(kind):
            values[kind] = source
        yield SourcePicker(self.source_title, self.kinds(), kind, values, id="source")

    @property
    def picker(self) -> SourcePicker:
        return self.query_one(SourcePicker)

    @while_standing
    def focus_first(self) -> None:
        path = self.wizard.focused.get(self.step, "")
        if path and path != self.source_path:
            super().focus_first()
        else:
            self.query_one("#source RadioControl").focus()

    @on(SourcePicker.Picked)
    def _picked(self, event: SourcePicker.Picked) -> None:
        event.stop()
        self.wizard.kinds[self.step] = event.kind
        self.wizard.sources[self.step, event.kind] = event.value
        error = self.set_value(self.source_path, event.value)
        self.picker.wrong(error is not None and bool(event.value))

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        if any(isinstance(node, SourcePicker) for node in event.widget.ancestors):
            self.wizard.focused[self.step] = self.source_path
            self.explain_field(self.source_path)

    def blocking(self) -> tuple[str, str] | None:
        block = super().blocking()
        if block is not None and block[0] == self.source_path and not self.picker.value:
            return block[0], f"{self.source_title}: {self.picker.kinds[self.picker.kind].placeholder}."
        return block

    def action_next(self) -> None:
        block = self.blocking()
        if block is not None and block[0] == self.source_path:
            inputs = self.query(f"#source-{self.picker.kind} TextControl")
            if inputs:
                inputs.first().focus()
            self.app.bell()
            return
        super().action_next()
