"""The way out: the recipe's YAML and the plain Unsloth script of what is on the form now, to read, copy and keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from pygments.token import Token
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import ScrollableContainer, Vertical
from textual.content import Content
from textual.highlight import HighlightTheme, highlight
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from ...core import as_code
from ...core.as_code import AsCode
from ...core.errors import FinetuiError
from ...core.named_files import given_path, write_new
from ...core.script_file import Script
from ...core.text import clean, middle
from ..theme import glyphs
from ..widgets.controls import TextControl
from ..widgets.dashboard.tabs import TabLine
from ..widgets.text import literal
from .confirm import ConfirmModal

if TYPE_CHECKING:
    from ..app import FinetuiApp
    from ..wizard import Wizard

YAML, SCRIPT = "Recipe", "Script"
SHOWN = 400_000
"""Characters of a file that are drawn; a copy and a file have all."""


class Colours(HighlightTheme):
    """Few of them, from the theme's own, so that they hold on light, dark and 16 colours."""

    STYLES = {  # noqa: RUF012
        Token.Comment: "$text-muted",
        Token.Keyword: "bold $accent",
        Token.Name.Tag: "$accent",
        Token.Literal.String: "$success",
        Token.Literal.Number: "$warning",
    }


class CodeModal(ModalScreen[None]):
    """The draft as code, in two tabs. Nothing in it changes the draft."""

    CSS_PATH = ["modal.tcss", "code.tcss"]
    AUTO_FOCUS = "#code-scroll"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", id="code.close"),
        Binding("tab,shift+tab", "turn", "The other file", id="code.turn", priority=True),
        Binding("1", "show('Recipe')", "The recipe", id="code.recipe"),
        Binding("2", "show('Script')", "The script", id="code.script"),
        Binding("c", "copy", "Copy", id="code.copy", tooltip="To the clipboard, where the terminal takes it"),
        Binding("s", "keep", "Save", id="code.keep", tooltip="To a file"),
    ]

    def __init__(self, wizard: Wizard) -> None:
        super().__init__()
        problems = {
            path: wizard.sentence(path, wizard.problem(path) or "")
            for path in (*wizard.draft.problems, *(["name"] if wizard.name_problem else []))
        }
        self.code: AsCode = as_code.of_draft(wizard.draft, problems, Path.cwd())
        self.texts: dict[str, str] = {YAML: self.code.yaml}
        """By tab: the contents of the file."""
        self.made: Script | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal-box"):
            yield TabLine(id="code-tabs")
            yield Static(id="code-missing", markup=False)
            with ScrollableContainer(id="code-scroll"):
                yield Static(id="code-text", markup=False)
            yield TextControl("", "a file's name; Enter saves, Esc does not", id="code-name")
            yield Static(id="code-said", markup=False)
            yield Static(id="code-keys", markup=False)

    def on_mount(self) -> None:
        self.app_.in_background("as-code", self.code.script, self._written)
        tabs = self.query_one(TabLine)
        tabs.names, tabs.current = (YAML, SCRIPT), YAML
        missing = [(f"{glyphs().cross} {literal(one)}", "$text-error") for one in self.code.missing[:3]]
        more = len(self.code.missing) - len(missing)
        missing += [(f"and {more} more", "$text-error")] if more > 0 else []
        lines = Content("\n").join(Content.assemble(line) for line in missing)
        self.query_one("#code-missing", Static).update(lines)
        self.query_one("#code-missing").display = bool(missing)
        self._paint()

    @property
    def app_(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    @property
    def tab(self) -> str:
        """The file in front."""
        return self.query_one(TabLine).current

    def _written(self, made: tuple[Script, str]) -> None:
        if not self.is_mounted:
            return
        self.made, problem = made
        self.texts[SCRIPT] = self.code.text(self.made)
        if problem:
            self._say(f"The rows could not be looked at, so the script takes the usual columns: {problem}")
        if self.tab == SCRIPT:
            self._paint()

    def _paint(self) -> None:
        text = self.texts.get(self.tab)
        shown = Content.assemble(("Looking at the rows …", "$text-muted"))
        if text is not None:
            language = "yaml" if self.tab == YAML else "python"
            shown = highlight(clean(text, SHOWN), language=language, theme=Colours)
        self.query_one("#code-text", Static).update(shown)
        self.query_one("#code-scroll").scroll_home(animate=False)
        dot = glyphs().middot
        words = f"Tab the other file {dot} arrows scroll {dot} c copy {dot} s save {dot} Esc"
        self.query_one("#code-keys", Static).update(Content.assemble((words, "$text-muted")))

    def _say(self, words: str, style: str = "$text-muted") -> None:
        self.query_one("#code-said", Static).update(Content.assemble((literal(words), style)))

    @on(TabLine.Chosen)
    def _chosen(self, event: TabLine.Chosen) -> None:
        event.stop()
        self.action_show(event.name)

    def action_turn(self) -> None:
        self.action_show(SCRIPT if self.tab == YAML else YAML)

    def action_show(self, name: str) -> None:
        """Puts the file `name` in front."""
        self._leave_name()
        self.query_one(TabLine).current = name
        self._paint()

    def action_copy(self) -> None:
        text = self.texts.get(self.tab)
        if text is None:
            self.app.bell()
            return
        self.app.copy_to_clipboard(text)
        self._say(f"{self.tab}: {len(text.splitlines()):,} lines sent to the clipboard (OSC 52).", "$success")

    def action_keep(self) -> None:
        if self.tab not in self.texts:
            self.app.bell()
            return
        field = self.query_one("#code-name", TextControl)
        field.show(self.code.yaml_name if self.tab == YAML else self.code.script_name)
        field.add_class("-asked")
        field.focus()
        self._say("" if self.tab == YAML else "A name that ends in .ipynb makes it a notebook.")

    @on(Input.Submitted, "#code-name")
    def _named(self, event: Input.Submitted) -> None:
        event.stop()
        if event.value.strip():
            self._save(event.value.strip(), force=False)

    def _save(self, name: str, force: bool) -> None:
        tab = self.tab

        def work() -> list[Path]:
            path = given_path(name).absolute()
            if tab == SCRIPT and path.suffix == ".ipynb":
                made, _ = self.code.script(notebook=True)
                files = [(path, self.code.text(made, notebook=True).encode())]
            else:
                files = [(path, self.texts[tab].encode())]
                beside = self.made.files if tab == SCRIPT and self.made is not None else ()
                files += [(path.with_name(name), content) for name, content in beside]
            write_new(files, force)
            return [file for file, _ in files]

        def failed(error: FinetuiError) -> None:
            if error.code == "file-exists" and not force:
                answers = (("no", "Keep it"), ("yes", "Replace it"))
                self.app.push_screen(
                    ConfirmModal(literal(error.what), "Replace it with this one?", answers),
                    lambda answer: self._save(name, force=True) if answer == "yes" else None,
                )
                return
            self._say(f"{error.what} {error.why}", "$text-error")

        self.app_.in_background("as-code-file", work, self._saved, failed)

    def _saved(self, files: list[Path]) -> None:
        if self.is_mounted:
            self._leave_name()
            names = " and ".join(file.name for file in files)
            self._say(f"Saved {names} in {middle(str(files[0].parent), 48)}", "$success")

    def _leave_name(self) -> None:
        field = self.query_one("#code-name", TextControl)
        if field.has_class("-asked"):
            field.remove_class("-asked")
            self.query_one("#code-scroll").focus()

    def action_close(self) -> None:
        if self.query_one("#code-name").has_class("-asked"):
            self._leave_name()
            self._say("")
        else:
            self.dismiss(None)
