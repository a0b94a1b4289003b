"""The half of the model step that looks: four lists, and what is known of the highlighted model."""

from __future__ import annotations

from functools import partial

from textual import events, on
from textual.app import ComposeResult
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from ...core.errors import FinetuiError
from ...core.model_download import DownloadState
from ...core.model_facts import ModelFacts
from ...core.recipe import DEMO
from ..theme import glyphs
from ..widgets.explain import Brief, Explain
from ..widgets.footer import Footer
from ..widgets.form import Fold
from ..widgets.models import details
from ..widgets.models.browser import ModelBrowser
from ..widgets.models.fitting import Fitting, Verdicts
from ..widgets.models.listing import Fits, ModelList
from ..widgets.models.rows import Browsing, Look, Row, Tab
from ..widgets.text import literal
from .closing import while_standing
from .model_lists import ModelLists
from .step import StepScreen

SOURCE = "model.source"
LOOK_AFTER_SECONDS = 0.35
"""How long the highlight must rest on a row before the hub is asked about it."""
IN_LISTS = (
    "step.next",
    "model.download",
    "model.cancel",
    "model.filter",
    "models.empty",
    "step.back",
    "step.advanced",
)
IN_FORM = ("step.next", "step.back", "step.advanced", "step.reset")


class ModelLooking(StepScreen):
    """Shows the lists, and the details of the row that is highlighted. Highlighting chooses nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._look: tuple[str, Look] = ("", Look())
        """What was found of the highlighted row, by its key."""
        self._look_timer: Timer | None = None
        self.waiting = ""
        """The key of a row that was taken to go on with, as soon as it has been looked at."""
        self._fitting = Fitting()
        self._detailed = ""
        """The key of the row whose details are shown."""
        self._lists: ModelLists | None = None
        self._highlight = ""
        """The key of the row to highlight first."""

    @property
    def browsing(self) -> Browsing:
        return self.wizard.models

    @property
    def browser(self) -> ModelBrowser:
        return self.query_one(ModelBrowser)

    @property
    def lists(self) -> ModelLists:
        """What stands in the four lists."""
        if self._lists is None:
            self._lists = ModelLists(self.finetui, lambda: self.show_rows())
        return self._lists

    # ── Layout ──

    def compose_before(self) -> ComposeResult:
        tab = self.browsing.tab
        self._highlight = self.lists.chosen_key
        yield ModelBrowser(tab, self.browsing.filters.get(tab, ""), id="models")

    def compose_after(self) -> ComposeResult:
        yield Static(id="model-warning", classes="-nothing", markup=False)

    def on_mount(self) -> None:
        self.finetui.downloads.adopt()
        self.lists.load_local()
        self.lists.open(self.browsing.tab, self.browsing.filters.get(self.browsing.tab, ""))

    @while_standing
    def focus_first(self) -> None:
        path = self.wizard.focused.get(self.step, "")
        if path and path != SOURCE and self.form.has(path):
            super().focus_first()
        else:
            self.browser.take_focus()

    # ── The rows ──

    @property
    def chosen(self) -> Row:
        """What the draft names, as a row."""
        return self.lists.chosen()

    def is_chosen(self, row: Row) -> bool:
        return row.key == self.lists.chosen_key

    @while_standing
    def show_rows(self, highlight: str = "") -> None:
        """Shows the rows of the list in front, with their marks."""
        browser, tab = self.browser, self.browsing.tab
        rows = self.lists.rows(tab, browser.text)
        words, mood = self.lists.status(tab, browser.text)
        if mood != "busy" and self._look[1].error is not None and self._look[1].error.code == "hub-offline":
            words, mood = "offline", "bad"
        browser.say(words, mood)
        highlight, self._highlight = highlight or self._highlight, ""
        self._weigh(rows)
        browser.show(rows, self.fits, self._marks(rows), highlight, self.lists.empty(tab, browser.text))

    def _marks(self, rows: list[Row]) -> dict[str, tuple[str, str]]:
        glyph, found = glyphs(), {}
        cached, chosen = self.browsing.cached, self.lists.chosen_key
        for row in rows:
            state = self.finetui.downloads.state(row.source)
            if row.key == chosen:
                found[row.key] = (glyph.check, "bold $success")
            elif state is not None and state.live:
                found[row.key] = (glyph.below, "bold $accent")
            elif row.source in cached and self.browsing.tab != "local":
                found[row.key] = (glyph.dot, "$success")
        return found

    def fits(self, row: Row) -> Fits:
        """For 4-bit and 16-bit: whether training `row` fits in what is free now."""
        return self._fitting.of(self._weighed(row))

    def _weighed(self, row: Row) -> ModelFacts | int | None:
        """What is known of the size of `row`."""
        facts = self.wizard.model_facts if self.is_chosen(row) else None
        return facts or self.browsing.looks.get(row.key, Look()).facts or row.parameters

    def _weigh(self, rows: list[Row]) -> None:
        """Has it worked out which of `rows` fit, where that is not known for this machine and recipe."""
        chosen = self.browser.model_list.row
        models = [self._weighed(row) for row in (*rows, *([chosen] if chosen else []))]
        work = self._fitting.work(models, self.wizard.machine, self.wizard.recipe())
        if work is None:
            return

        def found(verdicts: Verdicts) -> None:
            self._fitting.take(verdicts)
            self.show_rows()
            self._paint_explanation()

        self.finetui.in_background("model fits", work, found)

    def look_of(self, row: Row) -> Look:
        """What is known of `row` beyond the row itself."""
        wizard = self.wizard
        known = self.browsing.looks.get(row.key, Look())
        if self.is_chosen(row):
            problem = wizard.problem(SOURCE)
            if problem:
                return Look(error=FinetuiError(wizard.sentence(SOURCE, problem)))
            facts = wizard.model_facts if not wizard.model_busy else known.facts
            return Look(facts or known.facts, wizard.trouble("model"), wizard.model_busy, known.adapter)
        if known.facts is not None:
            return known
        return self._look[1] if self._look[0] == row.key else Look()

    # ── Looking ──

    @on(ModelList.Rested)
    def _rested(self, event: ModelList.Rested) -> None:
        event.stop()
        row = event.row
        if self.waiting and (row is None or row.key != self.waiting):
            self.waiting = ""
        self._look = ("", Look())
        if self._look_timer is not None:
            self._look_timer.stop()
            self._look_timer = None
        self.finetui.forget("model look")
        if row is not None and not self.is_chosen(row) and row.key not in self.browsing.looks:
            if row.source == DEMO:
                self.look_at(row)
            else:
                self._look_timer = self.set_timer(LOOK_AFTER_SECONDS, partial(self.look_at, row))
        self.refresh_bindings()
        self._paint_explanation()

    def look_at(self, row: Row) -> None:
        """Looks at `row` in a thread; only the newest look is answered."""
        from .model_lists import look

        def found(what: Look) -> None:
            if what.error is None:
                self.browsing.looks[row.key] = what
            self._look = (row.key, what)
            self.paint()
            self.refresh_bindings()

        self._look = (row.key, Look(busy=True))
        self.finetui.in_background("model look", partial(look, row), found)
        self._paint_explanation()

    # ── What the base calls ──

    def refresh_facts(self) -> None:
        warning = self.warning()
        self.once("warning", warning, partial(self._warn, warning))
        self.lists.load_local()
        self.show_rows()

    def _warn(self, warning: str) -> None:
        box = self.query_one("#model-warning", Static)
        box.set_class(not warning, "-nothing")
        box.update(
            Content.assemble((f"{glyphs().warn} ", "bold $warning"), (literal(warning), "$text-warning"))
        )

    def warning(self) -> str:
        """What is likely to go wrong with these choices."""
        wizard = self.wizard
        facts, length, machine = wizard.model_facts, wizard.value("model.max_length"), wizard.machine
        if wizard.value("model.precision") == "4bit" and machine is not None and not machine.has_gpu:
            return "4-bit needs an NVIDIA GPU, and none was found here. Take 16-bit."
        if facts is not None and facts.context_length and isinstance(length, int):
            if length > facts.context_length:
                return f"Longer than the {facts.context_length:,} tokens that this model was made for."
        return ""

    @while_standing
    def _paint_explanation(self) -> None:
        row = self.browser.model_list.row if self.browser.model_list.is_mounted else None
        if self._explained != SOURCE or row is None:
            super()._paint_explanation()
            return
        look, fits, download = self.look_of(row), self.fits(row), self.finetui.downloads.state(row.source)
        now = ("model", row, look, fits, download)
        self.once("explanation", now, lambda: self._detail(row, look, fits, download))

    def _detail(self, row: Row, look: Look, fits: Fits, download: DownloadState | None) -> None:
        again = self._detailed == row.key
        self._detailed = row.key
        self.query_one(Explain).show(details.full(row, look, fits, download), stay=again)
        self.query_one(Brief).offer(details.levels(row, look, fits, download))
        self.call_after_refresh(self.fit)

    def explain_content(self) -> Content | None:
        """The highlighted model in full, for the help."""
        row = self.browser.model_list.row
        if self._explained != SOURCE or row is None:
            return super().explain_content()
        return details.full(row, self.look_of(row), self.fits(row), self.finetui.downloads.state(row.source))

    @while_standing
    def fit(self) -> None:
        """The pane under the form keeps its height here, so that the lists do not jump."""
        box = self.query_one(Brief)
        room = box.content_size.height
        if box.display and room:
            box.fit(room, least=room, width=max(10, box.content_size.width))

    # ── Between the lists ──

    @on(ModelBrowser.TabChosen)
    def _tab_chosen(self, event: ModelBrowser.TabChosen) -> None:
        event.stop()
        self.turn_to(event.tab)

    def turn_to(self, tab: Tab) -> None:
        """Shows another list, with what was typed for it before."""
        browser, typed = self.browser, self.browsing.filters.get(tab, "")
        in_tabs = self.focused is not None and self.focused.id == "model-tabs"
        self.browsing.tab = tab
        browser.turn_to(tab, typed)
        self.lists.open(tab, typed)
        self.show_rows(self.lists.chosen_key)
        if not in_tabs:
            browser.take_focus()
        self.refresh_bindings()

    @on(ModelBrowser.Typed)
    def _typed(self, event: ModelBrowser.Typed) -> None:
        event.stop()
        tab = self.browsing.tab
        self.browsing.filters[tab] = event.text
        self.lists.typed(tab, event.text)
        rows = self.lists.rows(tab, event.text)
        self.show_rows(rows[0].key if rows else "")

    @on(ModelList.Left)
    def _left_list(self, event: ModelList.Left) -> None:
        event.stop()
        self.action_move(event.out)

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        inside = self.browser in event.widget.ancestors
        self.query_one(Footer).set_first(IN_LISTS if inside else IN_FORM)
        if inside:
            self.wizard.focused[self.step] = SOURCE
            self.explain_field(SOURCE)
        elif not isinstance(event.widget, Fold):
            self.waiting = ""
