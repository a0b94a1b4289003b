"""Several sources trained on together: each with its weight, and how many rows that gives, live beside it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Button, Static

from ...core.errors import FinetuiError
from ...core.recipe import DatasetSection
from ...core.text import counted, one_line
from ..screens.closing import while_standing
from ..theme import glyphs
from ..widgets.controls import Edited, TextControl
from ..widgets.text import literal

if TYPE_CHECKING:
    from ...core.dataset import DatasetFacts
    from ..app import FinetuiApp

LOOK_AFTER_SECONDS = 0.3
FEWEST_LINES = 3


class MixLine(Horizontal):
    """One source: where it is, its weight, and the rows that come of it."""

    def __init__(self, source: str = "", weight: float = 1.0) -> None:
        self.controls = (
            TextControl(source, "a file, folder or hub id"),
            TextControl(f"{weight:g}", "1", numeric=True),
        )
        self.controls[1].add_class("-numeric")
        self._rows = Static(classes="mix-rows", markup=False)
        super().__init__(*self.controls, self._rows, classes="mix-line")
        self.facts: DatasetFacts | FinetuiError | None = None
        """What was found of `source`; None while it is not known."""
        self.looked_at = ""
        """The source that `facts` are of, or will be."""

    @property
    def source(self) -> str:
        return self.controls[0].value.strip()

    @property
    def weight(self) -> float | None:
        """None where it is no number that a weight may be."""
        text = self.controls[1].value.strip() or "1"
        try:
            mix = DatasetSection(mix={"a": float(text)}).mix
        except ValueError:
            return None
        return mix["a"] if mix else None

    @property
    def rows(self) -> float | None:
        """The rows that it gives, weighted; None where that is not known."""
        if self.facts is None or isinstance(self.facts, FinetuiError) or self.facts.rows is None:
            return None
        return None if self.weight is None else self.facts.rows * self.weight

    @property
    def exact(self) -> bool:
        """Whether `rows` is no guess: a part of the rows is drawn by their words, and comes out a little more or less."""
        facts, weight = self.facts, self.weight
        whole = weight is not None and float(weight).is_integer()
        return whole and facts is not None and not isinstance(facts, FinetuiError) and facts.rows_exact

    def paint(self) -> None:
        self.controls[0].set_class(isinstance(self.facts, FinetuiError), "-wrong")
        self.controls[1].set_class(self.weight is None, "-wrong")
        self._rows.update(Content.assemble(self._words()))

    def _words(self) -> tuple[str, str]:
        marks = glyphs()
        if not self.source:
            return "", ""
        if self.weight is None:
            return f"{marks.cross} above 0, at most 100", "$text-error"
        if isinstance(self.facts, FinetuiError):
            return f"{marks.cross} {one_line(self.facts.what, 60)}", "$text-error"
        if self.facts is None:
            return f"looking {marks.ellipsis}", "$text-muted"
        if self.facts.rows is None or self.rows is None:
            return f"{marks.check} rows not counted yet", "$text-muted"
        about = "" if self.exact else "~"
        times = "" if self.weight == 1 else f"{self.facts.rows:,} × {self.weight:g} = "
        return f"{marks.check} {times}{about}{counted(round(self.rows), 'row')}", "$text-success"


class MixModal(ModalScreen[dict[str, float] | None]):
    """Dismisses with what is mixed with the dataset (empty: nothing), or None where all stays as it was."""

    CSS_PATH = ["modal.tcss", "mix.tcss"]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", id="mix.cancel"),
        Binding("ctrl+n", "use", "Use them", id="mix.use"),
        Binding("f2", "browse", "Browse", id="mix.browse", tooltip="Look for a file of rows"),
        Binding("down", "app.focus_next", "Next", show=False, id="mix.next"),
        Binding("up", "app.focus_previous", "Previous", show=False, id="mix.previous"),
    ]

    def __init__(self, section: DatasetSection, facts: DatasetFacts | None, mix: dict[str, float]) -> None:
        """`facts` are of the dataset itself, without what is mixed in; None where they are not known."""
        super().__init__()
        self._section = section
        self._facts = facts
        self._mix = mix
        self._timer: Timer | None = None

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    @property
    def lines(self) -> list[MixLine]:
        return list(self.query(MixLine))

    def compose(self) -> ComposeResult:
        about = "Each source with its weight: 1 takes every row once, 0.5 half of them, 2 every row twice."
        with Vertical(classes="modal-box"):
            yield Static(
                Content.assemble(("Sources mixed  ", "bold $accent"), (about, "$text-muted")), markup=False
            )
            yield Static(id="mix-own", markup=False)
            with VerticalScroll(id="mix-lines", can_focus=False):
                for source, weight in self._mix.items():
                    yield MixLine(source, weight)
                for _ in range(max(1, FEWEST_LINES - len(self._mix))):
                    yield MixLine()
            yield Static(id="mix-sum", markup=False)
            with Horizontal(classes="modal-buttons"):
                yield Button(Content("Use them ^n"), id="mix-use", compact=True)
                yield Button(Content("Browse F2"), id="mix-browse", compact=True)
                yield Button(Content("Cancel Esc"), id="mix-cancel", compact=True)

    def on_mount(self) -> None:
        self.lines[0].controls[0].focus()
        if self._facts is None:
            self._look_at_own()
        self._look()

    # ── Looking ──

    def _look_at_own(self) -> None:
        section = self._section.model_copy(update={"mix": None})

        def work() -> DatasetFacts:
            from ...core import dataset

            return dataset.inspect(section)

        self.finetui.in_background("mix own", work, self._got_own, lambda _: None)

    @while_standing
    def _got_own(self, facts: DatasetFacts) -> None:
        self._facts = facts
        self._paint()

    def _look(self) -> None:
        """Looks at each source that is another than it was."""
        for line in self.lines:
            source = line.source
            if source == line.looked_at:
                continue
            line.looked_at, line.facts = source, None
            group = f"mix {id(line)}"
            self.finetui.forget(group)
            if source:
                got = partial(self._got, line, source)
                self.finetui.in_background(group, partial(self._facts_of, source), got, got)
        self._paint()

    def _facts_of(self, source: str) -> DatasetFacts:
        """Blocking. Raises FinetuiError."""
        from ...core import dataset

        try:
            section = DatasetSection(source=source, split=self._section.split)
        except ValueError as error:
            raise FinetuiError("This cannot be a source.", code="dataset-missing") from error
        return dataset.inspect(section)

    @while_standing
    def _got(self, line: MixLine, source: str, facts: DatasetFacts | FinetuiError) -> None:
        if line.is_attached and line.looked_at == source:
            line.facts = facts
            self._paint()

    @while_standing
    def _paint(self) -> None:
        for line in self.lines:
            if line.is_mounted:  # the newest may not be yet
                line.paint()
        own = self._facts.rows if self._facts is not None else None
        name = literal(self._section.source, 200).rstrip("/").rpartition("/")[2]
        words = counted(own, "row") if own is not None else "not counted yet"
        self.query_one("#mix-own", Static).update(
            Content.assemble((name, "bold"), (f"  weight 1, {words}; with it", "$text-muted"))
        )
        self.query_one("#mix-sum", Static).update(Content.assemble(self._sum(own)))

    def _sum(self, own: int | None) -> tuple[str, str]:
        problem = self.problem
        if problem:
            return f"{glyphs().cross} {problem}", "$text-error"
        counts = [line.rows for line in self.lines if line.source]
        if own is None or any(count is None for count in counts):
            return "", ""
        added = sum(count for count in counts if count is not None)
        share = f", {added / (own + added):.0%} of them from what is mixed in" if added else ""
        exact = all(line.exact for line in self.lines if line.source) and (
            self._facts is None or self._facts.rows_exact
        )
        about = "" if exact else "about "
        return f"Together {about}{counted(round(own + added), 'row')}{share}.", "$foreground"

    @property
    def problem(self) -> str:
        """What keeps the sources from being used; empty where nothing does."""
        named = [line.source for line in self.lines if line.source]
        if len(set(named)) < len(named):
            return "A source stands here twice."
        if self._section.source in named:
            return "The dataset itself is among the sources."
        wrong = next((line for line in self.lines if line.source and line.weight is None), None)
        return "A weight must be a number above 0, at most 100." if wrong is not None else ""

    # ── Editing ──

    @on(Edited)
    def _edited(self, event: Edited) -> None:
        event.stop()
        if self.lines[-1].source:
            self.query_one("#mix-lines").mount(MixLine())
        self._paint()
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(LOOK_AFTER_SECONDS, self._look)

    @on(Button.Pressed, "#mix-browse")
    def action_browse(self) -> None:
        from ..widgets.source import rows_dialog

        focused = self.focused
        line = next((one for one in self.lines if focused is not None and one in focused.ancestors), None)
        line = line or next((one for one in self.lines if not one.source), self.lines[-1])

        def chosen(path: Path | None) -> None:
            if path is not None and line.is_attached:
                line.controls[0].value = str(path)

        self.app.push_screen(rows_dialog(line.source), chosen)

    @on(TextControl.Submitted)
    @on(Button.Pressed, "#mix-use")
    def action_use(self) -> None:
        if self.problem:
            self.app.bell()
            return
        self.dismiss({line.source: line.weight or 1.0 for line in self.lines if line.source})

    @on(Button.Pressed, "#mix-cancel")
    def action_cancel(self) -> None:
        self.dismiss(None)
