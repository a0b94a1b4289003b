"""A step's form, built from the declared fields: a row each, the less common ones folded away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Static

from ...core.draft import pairs_text, texts_text
from ...core.export import FORMATS
from ...core.fields import FieldSpec, field
from ...core.recipe_lora import FUSED_MODULES
from ..theme import glyphs
from .controls import ChecklistControl, ChoiceControl, Edited, TextControl
from .text import clip, literal

LABELS: dict[str, dict[str, str]] = {
    "model.precision": {
        "16bit": "16-bit",
        "8bit": "8-bit",
        "32bit": "32-bit (full)",
        "4bit": "4-bit (QLoRA)",
    },
    "dataset.format": {
        "auto": "found by itself",
        "prompt_completion": "prompt, completion",
        "sharegpt": "ShareGPT",
    },
    "dataset.train_on": {"answers": "answers only", "last_answer": "the last answer"},
    "dataset.system_mode": {
        "keep": "keep the rows' own",
        "add": "put yours before",
        "replace": "replace all",
    },
    "dataset.multi_turn": {"keep": "whole", "split": "one row per answer"},
    "lora.target_modules": {
        "q_proj": "q",
        "k_proj": "k",
        "v_proj": "v",
        "o_proj": "o",
        "gate_proj": "gate",
        "up_proj": "up",
        "down_proj": "down",
        "qkv_proj": "q, k, v in one",
        "gate_up_proj": "gate, up in one",
    },
    "lora.method": {"lora": "LoRA", "full": "full fine-tuning"},
    "lora.modules_to_save": {"embed_tokens": "embeddings", "lm_head": "output layer"},
    "training.schedule": {
        "cosine_with_restarts": "cosine, restarts",
        "constant_with_warmup": "constant, warm-up",
        "inverse_sqrt": "inverse root",
    },
    "training.optimizer": {
        "adamw_torch": "AdamW",
        "adamw_8bit": "AdamW, 8-bit",
        "paged_adamw_8bit": "AdamW, 8-bit paged",
        "lion_8bit": "Lion, 8-bit",
        "adafactor": "Adafactor",
    },
    "export.formats": {
        "adapter": "adapter",
        "adapter_gguf": "adapter, GGUF",
        "merged": "merged 16-bit",
        "merged_4bit": "merged 4-bit",
        **{f: info.title for f, info in FORMATS.items() if info.quantization},
    },
}
"""What people read in place of a value, by field."""

RARE: dict[str, tuple[str, ...]] = {
    "export.formats": tuple(f for f, info in FORMATS.items() if not info.common),
    "lora.target_modules": tuple(FUSED_MODULES),
}
"""Choices that are folded away, by field."""

PLACEHOLDERS = {
    "model.revision": "newest",
    "dataset.config": "the only one",
    "dataset.system_prompt": "none",
    "dataset.evaluation_source": "a share of the rows",
    "dataset.evaluation_split": "a share of the rows",
    "dataset.columns": "found by themselves",
    "dataset.mix": "nothing; F6 opens a form",
    "model.adapter": "a new one",
    "model.remote_code": "none runs",
    "dataset.row_limit": "all",
    "training.max_steps": "none",
    "training.embedding_learning_rate": "as above",
    "training.warmup_steps": "a share",
    "training.neftune_noise_alpha": "none",
    "training.evaluation_batch_size": "the same",
    "training.early_stopping_patience": "never",
    "training.sample_prompts": "held-out ones alone",
}
"""What an empty optional field means, in a word or two."""


def value_words(path: str, value: Any) -> str:
    """`value` of the field at `path` as people read it: numbers short, flags as on and off, None as its meaning."""
    if value is None or value == "":
        return PLACEHOLDERS.get(path, "none")
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, dict):
        return pairs_text(value) or "none"
    if isinstance(value, (tuple, list)):
        if field(path).kind == "texts":
            return texts_text(value) or PLACEHOLDERS.get(path, "none")
        if not value:
            return "none"
        return ", ".join(LABELS.get(path, {}).get(str(v), str(v)) for v in value)
    if isinstance(value, (int, float)):
        return number_text(value)
    return LABELS.get(path, {}).get(str(value), str(value))


def number_text(value: float) -> str:
    """A number as one would type it: `16`, `0.1`, `2e-4`."""
    if isinstance(value, int):
        return str(value)
    if value and abs(value) <= 0.001:
        head, _, power = f"{value:.6e}".partition("e")
        return f"{head.rstrip('0').rstrip('.')}e{int(power)}"
    return f"{value:.10g}"


class FieldRow(Horizontal):
    """Label, control, note. The note is the unit, or what the value means here."""

    def __init__(self, spec: FieldSpec, value: Any) -> None:
        super().__init__(id="row-" + spec.path.replace(".", "-"), classes="field-row")
        self.spec = spec
        self._value = value
        self._note = spec.unit
        self._error: str | None = None

    def compose(self) -> ComposeResult:
        spec, labels = self.spec, LABELS.get(self.spec.path)
        yield Static(Content(spec.title), classes="field-label", markup=False)
        if spec.kind == "choice":
            yield ChoiceControl(spec.choices, str(self._value), labels)
        elif spec.kind == "flag":
            value = "true" if self._value is True else "false" if self._value is False else str(self._value)
            yield ChoiceControl(("false", "true"), value, {"false": "off", "true": "on"})
        elif spec.kind == "choices":
            chosen = self._value if isinstance(self._value, (tuple, list)) else ()
            yield ChecklistControl(
                spec.choices, [str(v) for v in chosen], labels, rare=RARE.get(spec.path, ())
            )
        else:
            control = TextControl(
                self.as_text(self._value),
                PLACEHOLDERS.get(spec.path, ""),
                numeric=spec.kind not in ("text", "texts", "pairs"),
            )
            control.set_class(spec.kind in ("text", "texts", "pairs"), "-long")
            yield control
        if spec.kind not in ("text", "texts", "choices", "pairs"):
            yield Static(Content(self._note), classes="field-note", markup=False)

    def on_descendant_focus(self) -> None:
        self.add_class("-focused")

    def on_descendant_blur(self) -> None:
        self.remove_class("-focused")

    @staticmethod
    def as_text(value: Any) -> str:
        """The text that an input shows for a value of the draft."""
        if value is None:
            return ""
        if isinstance(value, dict):
            value = pairs_text(value)
        if isinstance(value, (tuple, list)):
            value = texts_text(value)
        return number_text(value) if isinstance(value, (int, float)) else literal(value, 8000)

    @property
    def field_control(self) -> Widget:
        return self.query("TextControl, ChoiceControl, ChecklistControl").first()

    def from_control(self, value: str | tuple[str, ...]) -> Any:
        """The control's value as the draft takes it; text is read by the draft itself."""
        if isinstance(value, tuple) or self.spec.kind == "choice":
            return value
        if self.spec.kind == "flag":
            return value == "true"
        return value

    def show(self, value: Any) -> None:
        """Show a value that was set elsewhere."""
        control = self.field_control
        if isinstance(control, TextControl):
            control.show(self.as_text(value))
        elif isinstance(control, ChecklistControl):
            control.value = tuple(value)
        elif isinstance(control, ChoiceControl):
            control.value = str(value).lower() if isinstance(value, bool) else str(value)

    def note(self, words: str) -> None:
        """What the value means here; the unit where nothing is known."""
        self._note = words or self.spec.unit
        self._paint()

    def error(self, sentence: str | None) -> None:
        """Mark the row as wrong, with a sentence beside it; None takes the mark away."""
        if sentence == self._error:
            return
        self._error = sentence
        self.set_class(bool(sentence), "-wrong")
        control = self.query("TextControl")
        if control:
            control.first().set_class(bool(sentence), "-wrong")
        self._paint()

    def _paint(self) -> None:
        for static in self.query(".field-note").results(Static):
            if self._error:
                static.update(
                    Content.assemble((f"{glyphs().cross} {self._error}", "$text-error")), layout=False
                )
            else:
                static.update(Content(self._note), layout=False)


class Fold(Widget, can_focus=True):
    """`▸ Advanced (9): dropout, rsLoRA, …`: a line that opens and closes the rest of the form."""

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,space,left,right", "fold", "Open or close", show=False, id="form.fold"),
    ]
    opened: reactive[bool] = reactive(False)

    class Turned(Message):
        """The fold was opened or closed."""

        def __init__(self, opened: bool) -> None:
            super().__init__()
            self.opened = opened

    def __init__(self, names: Sequence[str], opened: bool = False) -> None:
        super().__init__(classes="fold")
        self._names = tuple(n[:1].lower() + n[1:] if n[1:].islower() else n for n in names)
        self.changed = 0
        self.set_reactive(Fold.opened, opened)

    def action_fold(self) -> None:
        self.opened = not self.opened
        self.post_message(self.Turned(self.opened))

    def on_click(self, event: events.Click) -> None:
        self.action_fold()

    def count(self, changed: int) -> None:
        """How many of the folded fields differ from their defaults."""
        self.changed = changed
        self.refresh()

    def render(self) -> Content:
        marks = glyphs()
        changed = f" {marks.middot} {self.changed} changed" if self.changed else ""
        head = f"{marks.below if self.opened else marks.current} Advanced ({len(self._names)}){changed}"
        rest = "" if self.opened else ": " + ", ".join(self._names)
        width = self.content_size.width
        style = (
            ("bold reverse" if self.app.native_ansi_color else "bold $background on $accent")
            if self.has_focus
            else "$foreground"
        )
        return Content.assemble(
            (clip(head, width), style), (clip(rest, max(0, width - len(head))), "$text-muted")
        )


class Form(Vertical):
    """The rows of one step. It shows values and errors; the screen owns them."""

    class Changed(Message):
        """The person gave the field at `path` a new raw value."""

        def __init__(self, path: str, value: Any) -> None:
            super().__init__()
            self.path = path
            self.value = value

    class Focused(Message):
        """The field at `path` has the focus now."""

        def __init__(self, path: str) -> None:
            super().__init__()
            self.path = path

    def __init__(
        self,
        basic: Sequence[FieldSpec],
        advanced: Sequence[FieldSpec],
        values: Mapping[str, Any],
        opened: bool = False,
    ) -> None:
        super().__init__(classes="form")
        self.basic = tuple(basic)
        self.advanced = tuple(advanced)
        self._values = values
        self._opened = opened

    def compose(self) -> ComposeResult:
        for spec in self.basic:
            yield FieldRow(spec, self._values[spec.path])
        if self.advanced:
            yield Fold([spec.title for spec in self.advanced], self._opened)
            with Vertical(classes="folded") as folded:
                folded.display = self._opened
                for spec in self.advanced:
                    yield FieldRow(spec, self._values[spec.path])

    def row(self, path: str) -> FieldRow:
        """The row of the field at `path`. Raises NoMatches where the form has none."""
        return self.query_one("#row-" + path.replace(".", "-"), FieldRow)

    def has(self, path: str) -> bool:
        return any(spec.path == path for spec in (*self.basic, *self.advanced))

    def focus_field(self, path: str) -> None:
        """Give the field at `path` the focus, opening the fold where it is folded away."""
        if any(spec.path == path for spec in self.advanced):
            self.open(True)
        self.row(path).field_control.focus()

    def open(self, opened: bool) -> None:
        """Open or close the advanced fields."""
        for fold in self.query(Fold):
            fold.opened = opened
        for folded in self.query(".folded"):
            folded.display = opened

    def count_changed(self, changed: int) -> None:
        for fold in self.query(Fold):
            fold.count(changed)

    @on(Fold.Turned)
    def _turned(self, event: Fold.Turned) -> None:
        self.open(event.opened)

    @on(Edited)
    def _edited(self, event: Edited) -> None:
        row = next((node for node in event.edited.ancestors if isinstance(node, FieldRow)), None)
        if row is not None:
            event.stop()
            self.post_message(self.Changed(row.spec.path, row.from_control(event.value)))

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        row = next((node for node in event.widget.ancestors_with_self if isinstance(node, FieldRow)), None)
        if row is not None:
            self.post_message(self.Focused(row.spec.path))
