"""Which column is what: roles on the left, and the first rows as they would be learned, live beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Button, Input, Static

from ...core.errors import FinetuiError
from ...core.fields import fields
from ...core.recipe import DatasetSection
from ...core.text import counted
from ..theme import glyphs
from ..widgets.controls import ChoiceControl, Edited, RadioControl, TextControl
from ..widgets.facts import Facts
from ..widgets.footer import Footer
from ..widgets.header import Header
from ..widgets.page import Page
from ..widgets.preview import RowPreview
from ..widgets.text import clip, literal
from .closing import while_standing

if TYPE_CHECKING:
    from ...core.dataset import DatasetFacts
    from ..app import FinetuiApp

KINDS: dict[str, tuple[str, ...]] = {
    "pair": ("user", "assistant", "system", "context"),
    "messages": ("messages", "system"),
    "text": ("text",),
    "preference": ("user", "chosen", "rejected", "system"),
}
"""The roles that a kind of row has; the first ones must be given."""

NEEDED = {"pair": 2, "messages": 1, "text": 1, "preference": 3}
KIND_WORDS = {
    "pair": "question + answer",
    "messages": "turns",
    "text": "text",
    "preference": "preference",
}
ROLE_WORDS = {
    "user": "Question",
    "assistant": "Answer",
    "system": "System prompt",
    "context": "Context",
    "messages": "List of turns",
    "text": "Text",
    "chosen": "Better answer",
    "rejected": "Worse answer",
}
NONE = "\0none"
LOOK_AFTER_SECONDS = 0.3


def kind_for(columns: dict[str, str] | None, format: str) -> str:
    """The kind of row that `columns` (or the format found) speak of."""
    for kind, role in (("preference", "chosen"), ("messages", "messages"), ("text", "text")):
        if columns and role in columns:
            return kind
    if columns:
        return "pair"
    return {"messages": "messages", "sharegpt": "messages", "text": "text", "preference": "preference"}.get(
        format, "pair"
    )


class MappingScreen(Screen[None]):
    """Puts `dataset.columns` into the draft."""

    CSS_PATH = "mapping.tcss"
    AUTO_FOCUS = "RadioControl"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+n", "use", "Use these", id="mapping.use", tooltip="Read the rows with these columns"),
        Binding("enter", "use", "Use these", show=False, id="mapping.enter"),
        Binding(
            "ctrl+r",
            "automatic",
            "Found by itself",
            id="mapping.auto",
            tooltip="Let the columns be found again",
        ),
        Binding("down", "move(1)", "Next role", show=False, id="mapping.down"),
        Binding("up", "move(-1)", "Role before", show=False, id="mapping.up"),
        Binding("escape,f5", "back", "Back", id="mapping.back"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._columns: tuple[str, ...] = ()
        self._chosen: dict[str, str] = {}
        self._kind = "pair"
        self._facts: DatasetFacts | None = None
        self._error: FinetuiError | None = None
        self._busy = False
        self._timer: Timer | None = None

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    def compose(self) -> ComposeResult:
        yield Header()
        with Horizontal(id="mapping"):
            with Page(id="mapping-form", can_focus=False):
                yield Static(id="mapping-words", markup=False)
                with Horizontal(classes="field-row mapping-kind"):
                    yield Static(Content("A row holds"), classes="field-label", markup=False)
                    yield RadioControl(tuple(KINDS), "pair", KIND_WORDS, id="mapping-kind")
                yield Vertical(id="roles")
                yield Static(id="mapping-examples", markup=False)
                yield Button(Content(f"Use these {glyphs().chevron}"), id="use", compact=True)
            with Page(id="mapping-result", can_focus=False):
                yield Static(Content("What the model would learn"), id="mapping-title", markup=False)
                yield Facts(id="mapping-facts")
                yield RowPreview(id="mapping-preview")
        yield Footer(first=("mapping.use", "mapping.auto", "mapping.back"))

    def on_mount(self) -> None:
        wizard = self.finetui.wizard
        head = self.query_one(Header)
        head.show_machine(self.finetui.looking.machine_line())
        head.show_place("Columns", str(wizard.value("dataset.source")).rpartition("/")[2])
        facts, columns = wizard.dataset_facts, wizard.value("dataset.columns")
        given = dict(columns) if isinstance(columns, dict) else None
        detection = facts.detection if facts is not None else None
        self._chosen = given or (dict(detection.mapping) if detection is not None else {})
        self._kind = kind_for(given, detection.format if detection is not None else "")
        self.query_one("#mapping-kind", RadioControl).value = self._kind
        self._show_roles()
        self._look()
        error = wizard.dataset_error
        if detection is not None and detection.columns:
            self._know(detection.columns)
        elif error is not None and getattr(error, "columns", ()):
            self._learn_from(error)
        else:
            self._find_columns()

    def _find_columns(self) -> None:
        """Looks at the dataset as it stands, for the names of its columns."""
        section = self._section(None)
        if section is None:
            self._know(())
            return

        def work() -> DatasetFacts:
            from ...core import dataset

            return dataset.inspect(section)

        self.finetui.in_background(
            "columns", work, lambda facts: self._know(facts.detection.columns), self._learn_from
        )

    @while_standing
    def _learn_from(self, error: FinetuiError) -> None:
        """Rows that could not be understood come with the names of their columns and an example of each."""
        self._know(tuple(getattr(error, "columns", ())), tuple(getattr(error, "examples", ())))

    def _section(self, columns: dict[str, str] | None) -> DatasetSection | None:
        """The dataset of the draft with `columns`; None where another field of it is wrong."""
        draft = self.finetui.wizard.draft
        values = {spec.path.split(".")[1]: draft[spec.path] for spec in fields("dataset")}
        try:
            return DatasetSection.model_validate({**values, "columns": columns, "format": "auto"})
        except ValueError:
            return None

    @while_standing
    def _know(self, columns: tuple[str, ...], examples: tuple[str, ...] = ()) -> None:
        self._columns = columns
        shown = [
            Content.assemble(
                (f"{literal(name, 40)}  ", "bold"), (clip(literal(example, 200), 60), "$text-muted")
            )
            for name, example in zip(columns, examples, strict=False)
        ]
        self.query_one("#mapping-examples", Static).update(Content("\n").join(shown))
        words = (
            "Say which column holds what; the rows beside follow at once."
            if columns
            else "The columns' names could not be read: type them."
        )
        self.query_one("#mapping-words", Static).update(Content.assemble((words, "$text-muted")))
        self._show_roles()

    # ── The form ──

    def _show_roles(self) -> None:
        """A row for each role of the kind, a choice of columns where they are known, else a text."""
        roles = self.query_one("#roles", Vertical)
        rows: list[Horizontal] = []
        for at, role in enumerate(KINDS[self._kind]):
            needed = at < NEEDED[self._kind]
            label = Static(Content(ROLE_WORDS[role]), classes="field-label", markup=False)
            value = self._chosen.get(role, "")
            if self._columns:
                choices = (NONE, *self._columns)
                names = {NONE: "choose one" if needed else "none"}
                control = ChoiceControl(choices, value if value in self._columns else NONE, names)
            else:
                control = TextControl(value, "the column's name" if needed else "none")
            control.role_of_column = role  # type: ignore[attr-defined]
            rows.append(Horizontal(label, control, classes="field-row"))
        roles.remove_children()
        roles.mount(*rows)

    @on(Edited)
    def _edited(self, event: Edited) -> None:
        event.stop()
        if isinstance(event.edited, RadioControl):
            self._kind = str(event.value)
            self._show_roles()
        else:
            role = getattr(event.edited, "role_of_column", "")
            value = str(event.value).strip()
            if value in ("", NONE):
                self._chosen.pop(role, None)
            else:
                self._chosen[role] = value
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(LOOK_AFTER_SECONDS, self._look)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_use()

    @property
    def columns(self) -> dict[str, str] | None:
        """The mapping as the recipe takes it; None while a role that is needed has no column."""
        roles = KINDS[self._kind]
        if any(role not in self._chosen for role in roles[: NEEDED[self._kind]]):
            return None
        return {role: self._chosen[role] for role in roles if role in self._chosen}

    # ── The result beside it ──

    def _look(self) -> None:
        columns = self.columns
        self.finetui.forget("mapping")
        self._facts = self._error = None
        self._busy = columns is not None
        self._paint()
        if columns is None:
            return
        section = self._section(columns)
        if section is None:
            self._got_error(
                FinetuiError("Another field of the dataset is wrong.", fix="Go back and mend it first.")
            )
            return

        def work() -> DatasetFacts:
            from ...core import dataset

            return dataset.inspect(section)

        self.finetui.in_background("mapping", work, self._got, self._got_error)

    @while_standing
    def _got(self, facts: DatasetFacts) -> None:
        self._facts, self._busy = facts, False
        self._paint()

    @while_standing
    def _got_error(self, error: FinetuiError) -> None:
        self._error, self._busy = error, False
        self._paint()

    @while_standing
    def _paint(self) -> None:
        box, preview = self.query_one("#mapping-facts", Facts), self.query_one("#mapping-preview", RowPreview)
        self.query_one("#use", Button).set_class(self._facts is None, "-blocked")
        facts = self._facts
        if self._error is not None:
            box.show_error(self._error)
        elif self._busy:
            box.show_busy(f"Reading the rows {glyphs().ellipsis}")
        elif facts is None:
            missing = [
                ROLE_WORDS[r].lower()
                for r in KINDS[self._kind][: NEEDED[self._kind]]
                if r not in self._chosen
            ]
            box.show_busy(f"Choose a column for: {', '.join(missing)}.")
        else:
            rows = (
                f"{'' if facts.rows_exact else 'about '}{counted(facts.rows, 'row')}"
                if facts.rows is not None
                else ""
            )
            box.show_found(literal(rows or facts.title), [], [], facts.left_out)
        preview.show(facts.first if facts is not None else ())

    # ── Actions ──

    @on(Button.Pressed, "#use")
    def action_use(self) -> None:
        """Takes the mapping into the draft, once it is seen to work."""
        columns = self.columns
        if columns is None or self._facts is None:
            if self._error is not None:
                self.finetui.show_error(self._error)
            self.app.bell()
            return
        wizard = self.finetui.wizard
        wizard.set("dataset.format", "auto")
        wizard.set("dataset.columns", columns)
        self._leave()

    def action_automatic(self) -> None:
        self.finetui.wizard.set("dataset.columns", None)
        self._leave()

    def _leave(self) -> None:
        self.app.pop_screen()
        self.finetui.draft_changed("dataset.columns")

    def action_back(self) -> None:
        self.app.pop_screen()

    def action_move(self, by: int) -> None:
        chain = self.focus_chain
        if self.focused in chain:
            chain[max(0, min(len(chain) - 1, chain.index(self.focused) + by))].focus()
