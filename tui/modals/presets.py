"""Presets: choose one, see in three columns what it would change, take it; keep your own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ...core import presets, presets_own
from ...core.errors import FinetuiError
from ...core.presets import Preset
from ...core.recipe import Recipe
from ...core.text import counted
from ..theme import glyphs
from ..widgets.controls import TextControl
from ..widgets.form import value_words
from ..widgets.text import clip, literal
from .confirm import ConfirmModal

if TYPE_CHECKING:
    from ..app import FinetuiApp
    from ..wizard import Wizard

Taken = tuple[str, dict[str, Any]]


class PresetsModal(ModalScreen[Taken | None]):
    """Dismisses with the name and values of the preset that was taken, or None."""

    CSS_PATH = ["modal.tcss", "presets.tcss"]
    AUTO_FOCUS = "#preset-list"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", id="presets.close"),
        Binding("c", "compare", "Compare with this", id="presets.compare"),
        Binding("a", "all", "All fields", id="presets.all"),
        Binding("s", "keep", "Save the form's", id="presets.keep"),
        Binding("x,delete", "forget", "Delete", id="presets.forget"),
        Binding("pagedown", "scroll(8)", show=False, id="presets.pagedown"),
        Binding("pageup", "scroll(-8)", show=False, id="presets.pageup"),
    ]

    def __init__(self, wizard: Wizard) -> None:
        super().__init__()
        self.wizard = wizard
        self.form = presets.of_draft("your form", "What is on the form now.", wizard.draft)
        self.known: list[Preset] = []
        self.last_run: Preset | None = None
        self.beside: Preset = self.form
        """What the chosen preset is compared with."""
        self.every = False
        self._broken: tuple[str, ...] = ()
        self._told_of = ""

    def compose(self) -> ComposeResult:
        with Vertical(classes="modal-box"):
            yield Static(Content.assemble(("Presets", "bold $accent")), id="preset-title", markup=False)
            yield OptionList(id="preset-list", markup=False, compact=True)
            yield Static(id="preset-why", markup=False)
            yield Static(id="preset-heads", markup=False)
            with VerticalScroll(id="preset-scroll", can_focus=False):
                yield Static(id="preset-table", markup=False)
            yield TextControl("", "a name, such as support-tone; Enter saves, Esc does not", id="preset-name")
            yield Static(id="preset-said", markup=False)
            yield Static(id="preset-keys", markup=False)

    def on_mount(self) -> None:
        self._fill()
        app = cast("FinetuiApp", self.app)
        app.in_background("last-run", _last_run, self._found_run, lambda _: None)

    def _found_run(self, preset: Preset | None) -> None:
        if self.is_mounted and preset is not None:
            self.last_run = preset
            self._fill(self.chosen.name if self.chosen else "")

    def _fill(self, at: str = "") -> None:
        mine, self._broken = presets_own.own()
        defaults = presets.of_recipe("defaults", "Every setting as a new recipe has it.", Recipe())
        self.known = [*presets.BUILT_IN, *mine, *([self.last_run] if self.last_run else []), defaults]
        listing = self.query_one(OptionList)
        listing.clear_options()
        width = max(len(preset.title) for preset in self.known)
        width = min(width, 24)
        for preset in self.known:
            count = len(presets.diff(self._here(preset)[0], self.form.values))
            words = (
                f"{counted(count, 'setting')} differ{'s' if count == 1 else ''}"
                if count
                else "as on your form"
            )
            mark = "yours " if preset.own else ""
            listing.add_option(
                Option(
                    Content.assemble(
                        f"{clip(literal(preset.title), width).ljust(width)}  ", (f"{mark}{words}", "")
                    )
                )
            )
        names = [preset.name for preset in self.known]
        listing.highlighted = names.index(at) if at in names else 0
        self._paint()

    def _here(self, preset: Preset) -> tuple[Mapping[str, Any], tuple[str, ...]]:
        wizard = self.wizard
        gpu = wizard.machine is None or wizard.machine.has_gpu
        return presets.here(preset, gpu=gpu, facts=wizard.model_facts, method=wizard.draft["lora.method"])

    @property
    def chosen(self) -> Preset | None:
        at = self.query_one(OptionList).highlighted
        return self.known[at] if at is not None and at < len(self.known) else None

    @on(OptionList.OptionHighlighted)
    def _moved(self, event: OptionList.OptionHighlighted) -> None:
        event.stop()
        self._paint()

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self._paint)

    def _paint(self) -> None:
        chosen = self.chosen
        if chosen is None:
            return
        values, said = self._here(chosen)
        why = [(literal(chosen.why, 300), "$foreground")]
        why += [(f" {literal(sentence)}", "$text-muted") for sentence in said]
        self.query_one("#preset-why", Static).update(Content.assemble(*why))
        room = max(30, self.query_one("#preset-scroll").size.width - 2)
        cells = (18, (room - 18) // 2)
        heads = self._row("", chosen.title, self.beside.title, cells, "bold $accent")
        self.query_one("#preset-heads", Static).update(heads)
        rows = []
        for one in presets.diff(values, self.beside.values, every=self.every):
            theirs = value_words(one.spec.path, one.theirs) if one.theirs_named else glyphs().dash
            yours = value_words(one.spec.path, one.yours) if one.yours_named else glyphs().dash
            same = one.theirs_named and one.yours_named and one.theirs == one.yours
            rows.append(
                self._row(one.spec.title, theirs, yours, cells, "$text-muted" if same else "$foreground")
            )
        empty = Content.assemble((f"{glyphs().check} No difference.", "$success"))
        self.query_one("#preset-table", Static).update(Content("\n").join(rows) if rows else empty)
        keys = f"Enter takes it {glyphs().middot} c compare {glyphs().middot} a "
        keys += "differences" if self.every else "all fields"
        keys += f" {glyphs().middot} s save yours"
        keys += f" {glyphs().middot} x delete" if chosen.own else ""
        self.query_one("#preset-keys", Static).update(
            Content.assemble((f"{keys} {glyphs().middot} Esc", "$text-muted"))
        )
        if self._told_of != chosen.name:
            self._say("; ".join(self._broken), "$text-error")

    @staticmethod
    def _row(title: str, theirs: str, yours: str, cells: tuple[int, int], style: str) -> Content:
        first, each = cells
        return Content.assemble(
            (clip(title, first - 1).ljust(first), "$text-muted"),
            (clip(literal(theirs), each - 2).ljust(each), style),
            (clip(literal(yours), each - 2), style),
        )

    def _say(self, words: str, style: str = "$text-error") -> None:
        """Stays as long as the same preset is chosen."""
        self._told_of = self.chosen.name if self.chosen else ""
        self.query_one("#preset-said", Static).update(Content.assemble((literal(words), style)))

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        chosen = self.chosen
        if chosen is not None:
            self.dismiss((chosen.title, dict(self._here(chosen)[0])))

    def action_compare(self) -> None:
        """Compare with the chosen preset from now; once more, with the form again."""
        chosen = self.chosen
        if chosen is not None:
            self.beside = self.form if self.beside.name == chosen.name else chosen
            self._paint()

    def action_all(self) -> None:
        self.every = not self.every
        self._paint()

    def action_scroll(self, lines: int) -> None:
        self.query_one("#preset-scroll", VerticalScroll).scroll_relative(y=lines, animate=False)

    def action_keep(self) -> None:
        field = self.query_one("#preset-name", TextControl)
        field.add_class("-asked")
        field.focus()

    @on(Input.Submitted, "#preset-name")
    def _named(self, event: Input.Submitted) -> None:
        event.stop()
        self._save(event.value.strip(), replace=False)

    def _save(self, name: str, replace: bool) -> None:
        preset = presets.of_draft(name, "Saved from the form.", self.wizard.draft, own=True)
        try:
            presets_own.save(preset, replace=replace)
        except FinetuiError as error:
            if error.code == "preset-exists":
                answers = (("no", "Keep it"), ("yes", "Replace it"))
                self.app.push_screen(
                    ConfirmModal(error.what, "Replace it with what is on the form now?", answers),
                    lambda answer: self._save(name, replace=True) if answer == "yes" else None,
                )
                return
            self._say(f"{error.what} {error.why}")
            return
        self._leave_name()
        self._fill(name)
        self._say(f"{name} is saved.", "$success")

    def _leave_name(self) -> None:
        field = self.query_one("#preset-name", TextControl)
        field.remove_class("-asked")
        field.show("")
        self.query_one(OptionList).focus()

    def action_forget(self) -> None:
        chosen = self.chosen
        if chosen is None or not chosen.own:
            self.app.bell()
            return

        def answered(answer: str | None) -> None:
            if answer != "yes":
                return
            try:
                presets_own.delete(chosen.name)
            except FinetuiError as error:
                self._say(f"{error.what} {error.why}")
                return
            self._fill()

        answers = (("no", "Keep it"), ("yes", "Delete it"))
        self.app.push_screen(
            ConfirmModal(f"Delete {literal(chosen.name)}?", "It cannot be brought back.", answers), answered
        )

    def action_close(self) -> None:
        if self.query_one("#preset-name").has_class("-asked"):
            self._leave_name()
        else:
            self.dismiss(None)


def _last_run() -> Preset | None:
    """The newest run's settings, where there is one whose recipe can be read."""
    from ...core import recipe_file
    from ...core.runs import store

    for run in store.all_runs()[:5]:
        try:
            recipe = recipe_file.load(run.recipe)
        except FinetuiError:
            continue
        return presets.of_recipe("last run", f"The settings of {run.id}.", recipe)
    return None
