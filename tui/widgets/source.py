"""Where a model or a dataset comes from: the kind in one row, what it needs in the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from .controls import ChoiceControl, Edited, RadioControl, TextControl
from .text import literal

if TYPE_CHECKING:
    from textual_fspicker import FileOpen

DATA_ENDINGS = (
    ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".txt", ".md", ".gz", ".zst",
)  # fmt: skip
"""What the browser shows as data."""


@dataclass(frozen=True)
class SourceKind:
    """One kind of source. `value` is fixed (the demo); else one of `choices`, or typed text; `browse` is what F2 opens."""

    key: str
    title: str
    words: str = ""
    value: str = ""
    choices: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    placeholder: str = ""
    browse: Literal["", "folder", "file"] = ""
    browse_title: str = ""


class SourcePicker(Vertical):
    """Posts `Picked` with the source's text whenever it changes; every kind remembers what was typed for it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "browse", "Browse", id="source.browse", tooltip="Look for it in the file system"),
    ]

    class Picked(Message):
        """The source is now `value`, of `kind`."""

        def __init__(self, kind: str, value: str) -> None:
            super().__init__()
            self.kind = kind
            self.value = value

    def __init__(
        self,
        title: str,
        kinds: Sequence[SourceKind],
        kind: str,
        values: Mapping[str, str],
        *,
        id: str | None = None,
    ) -> None:
        """`values` are the texts by kind; `kind` is the one chosen now."""
        super().__init__(id=id, classes="source")
        self._title = title
        self.kinds = {one.key: one for one in kinds}
        self.kind = kind
        self.values: dict[str, str] = {
            **{one.key: one.value or (one.choices[0] if one.choices else "") for one in kinds},
            **values,
        }

    def compose(self) -> ComposeResult:
        titles = {key: one.title for key, one in self.kinds.items()}
        with Horizontal(classes="field-row source-kind"):
            yield Static(Content(self._title), classes="field-label", markup=False)
            yield RadioControl(tuple(self.kinds), self.kind, titles)
        for key, one in self.kinds.items():
            with Horizontal(id=f"source-{key}", classes="field-row source-value") as row:
                row.display = key == self.kind
                yield Static(Content(""), classes="field-label", markup=False)
                if one.choices:
                    yield ChoiceControl(one.choices, self.values[key], one.labels)
                    yield Static(classes="field-note source-note", markup=False)
                elif one.value:
                    yield Static(Content(one.words), classes="source-words", markup=False)
                else:
                    yield TextControl(literal(self.values[key], 1000), one.placeholder)

    @property
    def value(self) -> str:
        """The source's text now."""
        return self.values[self.kind]

    def choose(self, kind: str) -> None:
        """Show `kind`'s row and take its text."""
        self.kind = kind
        for key in self.kinds:
            self.query_one(f"#source-{key}").display = key == kind
        self.post_message(self.Picked(kind, self.value))
        self.refresh_bindings()

    def note(self, words: str) -> None:
        """A remark beside the choice of a kind that has one."""
        for static in self.query(".source-note").results(Static):
            static.update(Content(words))

    def wrong(self, is_wrong: bool) -> None:
        """Mark the text as one that cannot be used."""
        for control in self.query(TextControl):
            control.set_class(is_wrong, "-wrong")

    @on(Edited)
    def _edited(self, event: Edited) -> None:
        event.stop()
        if isinstance(event.edited, RadioControl):
            self.choose(str(event.value))
            return
        self.values[self.kind] = str(event.value).strip()
        self.post_message(self.Picked(self.kind, self.value))

    def on_descendant_focus(self, event: Any) -> None:
        for row in self.query(".field-row"):
            row.set_class(event.widget in row.query("*"), "-focused")

    def on_descendant_blur(self) -> None:
        for row in self.query(".field-row"):
            row.remove_class("-focused")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """F2 works where there is something to browse."""
        return action != "browse" or bool(self.kinds[self.kind].browse)

    def action_browse(self) -> None:
        kind = self.kinds[self.kind]

        def chosen(path: Path | None) -> None:
            if path is not None:
                self.query_one(f"#source-{kind.key} TextControl", TextControl).value = str(path)

        if kind.browse == "folder":
            from textual_fspicker import SelectDirectory

            title = kind.browse_title or "A folder with a model"
            self.app.push_screen(SelectDirectory(_folder_near(self.value), title=title), chosen)
        else:
            self.app.push_screen(rows_dialog(self.value), chosen)


def _folder_near(text: str) -> Path:
    """The folder that `text` names, or the nearest one above it."""
    start = Path(text).expanduser() if text else Path.cwd()
    while not start.is_dir() and start != start.parent:
        start = start.parent
    return start


def rows_dialog(text: str) -> FileOpen:
    """A dialog to look for a file of rows, from where `text` points on."""
    from textual_fspicker import FileOpen, Filters

    filters = Filters(("Data", lambda path: path.suffix.lower() in DATA_ENDINGS), ("All", lambda _: True))
    return FileOpen(_folder_near(text), title="A file of rows", filters=filters)
