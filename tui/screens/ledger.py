"""The ledger: every row accounted for, and what was found, each finding with what mends it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from ...core.errors import FinetuiError
from ...core.fields import field as declared
from ...core.text import counted, one_line
from ..modals.confirm import ConfirmModal
from ..theme import glyphs
from ..widgets.dataset.figures import figures
from ..widgets.dataset.findings import FindingList
from ..widgets.dataset.report import report_words
from ..widgets.footer import Footer
from ..widgets.form import value_words
from ..widgets.header import Header
from ..widgets.page import Page
from ..widgets.text import literal
from .closing import while_standing

if TYPE_CHECKING:
    from ...core.dataset_inspect import CleanCopy
    from ...core.dataset_ledger import Action, Finding
    from ..app import FinetuiApp
    from ..inspecting import Inspection


class LedgerScreen(Screen[None]):
    """Findings with their actions, and all figures; it fills while the rows are still being read."""

    CSS_PATH = "ledger.tcss"
    AUTO_FOCUS = "#findings"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f3", "rows", "Rows", id="ledger.rows", tooltip="See the rows token by token"),
        Binding(
            "x", "cancel", "Stop reading", id="ledger.cancel", tooltip="Stop reading; what is known stays"
        ),
        Binding("r", "again", "Read again", id="ledger.again", tooltip="Read all rows again"),
        Binding("pagedown,space", "page(1)", "Page down", show=False, id="ledger.pagedown"),
        Binding("pageup", "page(-1)", "Page up", show=False, id="ledger.pageup"),
        Binding("home", "page(-1000)", "Top", show=False, id="ledger.top"),
        Binding("end", "page(1000)", "End", show=False, id="ledger.end"),
        Binding("escape,f4", "back", "Back", id="ledger.back"),
    ]

    @property
    def finetui(self) -> FinetuiApp:
        return cast("FinetuiApp", self.app)

    @property
    def inspection(self) -> Inspection:
        return self.finetui.wizard.inspection

    def compose(self) -> ComposeResult:
        yield Header()
        yield Static(id="ledger-state", markup=False)
        yield Static(id="ledger-said", markup=False)
        with Page(id="ledger-page", can_focus=False):
            with Vertical(id="ledger-findings"):
                yield Static(id="ledger-none", markup=False)
                yield FindingList(id="findings")
            yield Static(id="ledger-figures", markup=False)
        yield Footer(first=("findings.act", "ledger.rows", "ledger.cancel", "ledger.again", "ledger.back"))

    def on_mount(self) -> None:
        self.query_one(Header).show_machine(self.finetui.looking.machine_line())
        self.query_one("#ledger-said").display = False
        self._shown: object = None
        self.finetui.changed.subscribe(self, self._changed)
        self._changed(None)

    @while_standing
    def _changed(self, _: object) -> None:
        inspection = self.inspection
        if inspection != self._shown:
            self._shown = inspection
            self._paint()
            self.refresh_bindings()

    @while_standing
    def _paint(self) -> None:
        inspection, ledger = self.inspection, self.inspection.ledger
        mark, style, words = report_words(inspection)
        facts = self.finetui.wizard.dataset_facts
        self.query_one(Header).show_place("Ledger", facts.title if facts is not None else "")
        if ledger is not None and inspection.state == "done":
            seconds = "seen before" if ledger.cached else f"{ledger.seconds:.1f} s"
            counts = (
                f"{counted(ledger.read, 'row')} read = {ledger.kept:,} kept + {ledger.dropped_rows:,} dropped"
            )
            below = "" if self.size.width >= 100 else f" {glyphs().middot} PgDn: all figures"
            mark, style = (glyphs().cross, "$text-error") if ledger.stops else (glyphs().check, "$success")
            words = f"{counts} ({seconds}){below}"
        elif not words:
            words = "Choose a model and a dataset first; then every row is read here."
        self.query_one("#ledger-state", Static).update(
            Content.assemble((f"{mark} ", f"bold {style}"), (literal(words), style))
        )
        none, found = self.query_one("#ledger-none", Static), self.query_one(FindingList)
        error = inspection.error
        if error is not None:
            none.update(
                Content.assemble(
                    (literal(error.what, 600), "bold $text-error"),
                    f"\n{literal(error.why, 1000)}\n",
                    (f"{glyphs().right} {literal(error.fix, 600)}" if error.fix else "", "$accent"),
                )
            )
        elif ledger is not None and not ledger.findings and inspection.state == "done":
            none.update(Content.assemble(("Nothing to mend.", "bold $success")))
        none.display = error is not None or (
            ledger is not None and not ledger.findings and inspection.state == "done"
        )
        found.show(ledger.findings if ledger is not None else ())
        self.query_one("#ledger-findings").display = none.display or bool(
            ledger is not None and ledger.findings
        )
        self._paint_figures()

    @while_standing
    def _paint_figures(self) -> None:
        box, ledger = self.query_one("#ledger-figures", Static), self.inspection.ledger
        cells = (box.content_size.width or self.size.width - 4) - 1
        rows = 3 if self.size.height < 30 else 6
        box.update(figures(ledger, max(24, cells), rows) if ledger is not None and ledger.read else "")

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self._paint_figures)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Stop while it reads; read again once it does not."""
        if action == "cancel":
            return self.inspection.state in ("waiting", "reading")
        if action == "again":
            return self.inspection.state in ("cancelled", "failed")
        return super().check_action(action, parameters)

    # ── What mends it ──

    @on(FindingList.Chosen)
    def _chosen(self, event: FindingList.Chosen) -> None:
        event.stop()
        finding, action = event.finding, event.action
        if action.key == "clean-copy":
            self._clean_copy(finding, action)
        elif action.key == "map":
            from .mapping import MappingScreen

            self.app.switch_screen(MappingScreen())
        elif action.key == "look":
            self._look(finding)
        elif action.change:
            self._change(action)
        elif action.key == "change-model":
            self.app.pop_screen()
            self.finetui.go("model")
        else:
            self.app.bell()

    def _change(self, action: Action) -> None:
        """Puts the action's values into the draft, and says what was changed."""
        wizard = self.finetui.wizard
        said: list[str] = []
        for path, value in action.change:
            before = value_words(path, wizard.value(path))
            error = wizard.set(path, value)
            title = declared(path).title
            said.append(
                wizard.sentence(path, error)
                if error
                else f"{title}: {before} {glyphs().right} {value_words(path, value)}"
            )
            self.finetui.draft_changed(path)
        # Not a toast: one would lie over the figures, here and on the step.
        line = self.query_one("#ledger-said", Static)
        line.update(literal(f"Changed. {'. '.join(said)}", 400))
        line.display = True

    def _look(self, finding: Finding) -> None:
        from .rows import RowsScreen

        self.app.push_screen(RowsScreen(finding=finding))

    def _clean_copy(self, finding: Finding, action: Action) -> None:
        """Asks first: it writes a file. Then offers to train on that one."""
        target = clean_path(str(self.finetui.wizard.value("dataset.source")))

        def answered(key: str | None) -> None:
            if key == "write":
                codes = action.codes or (finding.code,)
                self.finetui.inspecting.ask(
                    "clean",
                    lambda inspector: inspector.write_clean(target, codes),
                    self._written,
                    self.finetui.show_error,
                )

        question = (
            f"{one_line(target.name, 200)} in {one_line(str(target.parent), 300)} will hold the rows that are kept, "
            "without these. Your own file stays as it is."
        )
        self.app.push_screen(
            ConfirmModal("Write a cleaned copy", question, (("write", "Write it"), ("cancel", "Cancel"))),
            answered,
        )

    @while_standing
    def _written(self, copy: CleanCopy) -> None:
        def answered(key: str | None) -> None:
            if key == "use":
                wizard = self.finetui.wizard
                wizard.set("dataset.source", str(copy.path))
                wizard.set("dataset.columns", None)
                wizard.set("dataset.format", "auto")
                wizard.kinds["dataset"] = "file"
                wizard.sources["dataset", "file"] = str(copy.path)
                self.finetui.draft_changed("dataset.source")

        words = (
            f"{counted(copy.written, 'row')} written to {one_line(copy.path.name, 200)}, {copy.left_out:,} left out "
            f"(in {one_line(str(copy.path.parent), 300)})."
        )
        self.app.push_screen(
            ConfirmModal(
                "The cleaned copy is there", words, (("use", "Train on it"), ("cancel", "Keep the old one"))
            ),
            answered,
        )

    # ── Actions ──

    def action_rows(self) -> None:
        from .rows import RowsScreen

        self.app.push_screen(RowsScreen())

    def action_cancel(self) -> None:
        self.finetui.inspecting.cancel()

    def action_again(self) -> None:
        self.finetui.inspecting.again()

    def action_page(self, by: int) -> None:
        page = self.query_one("#ledger-page", VerticalScroll)
        if abs(by) > 1:
            page.scroll_to(y=0 if by < 0 else page.max_scroll_y, animate=False)
        else:
            (page.scroll_page_down if by > 0 else page.scroll_page_up)(animate=False)

    def action_back(self) -> None:
        self.app.pop_screen()


def clean_path(source: str) -> Path:
    """Where a cleaned copy of `source` goes: beside a file, else into the working folder; a name that is still free."""
    from ...core import dataset

    folder, stem = Path.cwd(), "dataset"
    try:
        kind = dataset.source_kind(source)
    except FinetuiError:
        kind = "hub"
    if kind == "file":
        path = Path(source).expanduser()
        folder, stem = path.absolute().parent, path.name.split(".")[0] or "dataset"
    elif source:
        stem = source.rpartition("/")[2]
    number = 1
    while True:
        target = folder / f"{stem}.clean{'' if number == 1 else f'-{number}'}.jsonl"
        if not target.exists():
            return target
        number += 1
