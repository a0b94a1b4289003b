"""The model step: what is tuned. Four lists to choose from, and what is known of the highlighted model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static

from ...core import hub
from ...core.errors import FinetuiError
from ...core.model_facts import AdapterFound, ModelFacts, RemoteCodeFound
from ...core.recipe import DEMO
from ..theme import glyphs
from ..widgets.explain import Brief, Explain
from ..widgets.footer import Footer
from ..widgets.form import Fold
from ..widgets.models import details
from ..widgets.models.browser import ModelBrowser
from ..widgets.models.fitting import Fitting
from ..widgets.models.listing import ModelList
from ..widgets.models.rows import Browsing, Look, Row, Tab
from ..widgets.text import literal
from .closing import while_standing
from .model_lists import ModelLists
from .step import StepScreen

SOURCE = "model.source"
LOOK_AFTER_SECONDS = 0.35
"""How long the highlight must rest on a row before the hub is asked about it."""
IN_LISTS = ("step.next", "model.download", "model.cancel", "model.filter", "step.back", "step.advanced")
IN_FORM = ("step.next", "step.back", "step.advanced", "step.reset")


class ModelScreen(StepScreen):
    """Highlighting looks, Enter chooses and goes on, space or a click chooses and stays."""

    CSS_PATH = ["step.tcss", "model.tcss"]
    step = "model"
    tagline = "what you start from"
    basic = ("model.precision", "model.max_length")
    hidden = (SOURCE,)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("d", "download", "Download", id="model.download", tooltip="Download it now, and go on meanwhile"),
        Binding("x", "cancel_download", "Stop download", id="model.cancel", tooltip="What was fetched stays"),
        Binding("slash", "filter", "Filter", key_display="/", id="model.filter", tooltip="Type to filter"),
        Binding("f2", "browse", "Browse", show=False, id="model.browse", tooltip="Look for a folder with a model"),
        Binding("t", "token", "Hub token", show=False, id="model.token", tooltip="Give a token for the hub"),
        Binding("f5", "again", "Look again", show=False, id="model.again", tooltip="Ask the hub and the disk anew"),
        *(
            Binding(str(n + 1), f"list({n})", name, show=False, id=f"model.list{n + 1}")
            for n, name in enumerate(("Recommended", "Hub search", "On this machine", "My runs"))
        ),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._look: tuple[str, Look] = ("", Look())
        """What was found of the highlighted row, by its key."""
        self._look_timer: Timer | None = None
        self._waiting = ""
        """The key of a row that was taken to go on with, as soon as it has been looked at."""
        self._fitting = Fitting()
        self._lists: ModelLists | None = None

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
        yield ModelBrowser(tab, self.browsing.filters.get(tab, ""), id="models")

    def compose_after(self) -> ComposeResult:
        yield Static(id="model-warning", classes="-nothing", markup=False)

    def on_mount(self) -> None:
        self._explained = SOURCE  # before the base paints
        super().on_mount()
        self._explained = SOURCE
        self.finetui.downloads.adopt()
        self.lists.load_local()
        self.lists.open(self.browsing.tab, self.browsing.filters.get(self.browsing.tab, ""))
        self.show_rows(self.lists.chosen_key)

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
        browser.say(*self.lists.status(tab, browser.text))
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

    def fits(self, row: Row):  # noqa: ANN201 - Fits
        """For 4-bit and 16-bit: whether training `row` fits in what is free now."""
        facts = self.browsing.looks.get(row.key, Look()).facts
        return self._fitting.of(facts or row.parameters, self.wizard.machine, self.wizard.recipe())

    def look_of(self, row: Row) -> Look:
        """What is known of `row` beyond the row itself."""
        wizard = self.wizard
        known = self.browsing.looks.get(row.key, Look())
        if self.is_chosen(row):
            problem = wizard.problem(SOURCE)
            if problem:
                return Look(error=FinetuiError(wizard.sentence(SOURCE, problem)))
            facts = wizard.model_facts if not wizard.model_busy else known.facts
            return Look(facts or known.facts, wizard.model_error, wizard.model_busy, known.adapter)
        if known.facts is not None:
            return known
        return self._look[1] if self._look[0] == row.key else Look()

    # ── Looking ──

    @on(ModelList.Rested)
    def _rested(self, event: ModelList.Rested) -> None:
        event.stop()
        row = event.row
        if self._waiting and (row is None or row.key != self._waiting):
            self._waiting = ""
        self._look = ("", Look())
        if self._look_timer is not None:
            self._look_timer.stop()
            self._look_timer = None
        self.finetui.forget("model look")
        if row is not None and not self.is_chosen(row) and row.key not in self.browsing.looks:
            if row.source == DEMO or not _is_hub(row.source):
                self._look_at(row)
            else:
                self._look_timer = self.set_timer(LOOK_AFTER_SECONDS, partial(self._look_at, row))
        self.refresh_bindings()
        self._paint_explanation()

    def _look_at(self, row: Row) -> None:
        """Looks at `row` in a thread; only the newest look is answered."""
        from .model_lists import look

        def found(what: Look) -> None:
            if what.error is None:
                self.browsing.looks[row.key] = what
            self._look = (row.key, what)
            self.paint()

        self._look = (row.key, Look(busy=True))
        self.finetui.in_background("model look", partial(look, row), found)
        self._paint_explanation()

    # ── Choosing ──

    @on(ModelList.Taken)
    def _taken(self, event: ModelList.Taken) -> None:
        event.stop()
        self.take(event.row, event.go)

    def take(self, row: Row, go: bool) -> None:
        """Chooses `row`; with `go` also goes on, as soon as it is known that it can be used."""
        known = self.look_of(row)
        if go and known.error is not None and details.offer(known.error):
            self._accept_offer(row, known.error)
            return
        if not self.is_chosen(row):
            self._choose(row, known.facts if known.error is None else None)
        if not go:
            return
        if self.wizard.model_busy and self._waiting != row.key and row.source != DEMO:
            self._waiting = row.key
            self.paint()
            return
        self._waiting = ""
        super().action_next()

    def _choose(self, row: Row, facts: ModelFacts | None = None, remote_code: str | None = None) -> None:
        """Puts `row` into the draft and has it looked at."""
        if not _is_hub(row.source) and row.source != DEMO:
            self.browsing.named = (*self.browsing.named[-20:], row.source)
        for path, value in (
            ("model.revision", row.revision),
            ("model.adapter", row.adapter),
            ("model.remote_code", remote_code),
        ):
            if self.wizard.value(path) != value:
                self.set_value(path, value)
                self.form.row(path).show(value)
        self.set_value(SOURCE, row.source)
        if facts is not None:
            self.finetui.looking.found("model", facts)
        else:
            self.finetui.looking.inspect("model", at_once=True)
        if row.adapter is not None:
            self._take_shape(row.adapter)
        self.show_rows()

    def _take_shape(self, adapter: str) -> None:
        """An adapter that is gone on with keeps its rank, alpha and layers: the LoRA step shows them."""
        from ...core.model_adapter import AdapterFacts, read_adapter

        def found(facts: AdapterFacts) -> None:
            if self.wizard.value("model.adapter") != adapter:
                return
            for name, value in (
                ("rank", facts.rank),
                ("alpha", facts.alpha),
                ("target_modules", facts.target_modules),
                ("rslora", facts.rslora),
            ):
                self.wizard.set(f"lora.{name}", value)
            self.finetui.draft_changed("lora")

        self.finetui.in_background("adapter", lambda: read_adapter(Path(adapter)), found)

    def _accept_offer(self, row: Row, error: FinetuiError) -> None:
        """Does what the card of `error` offers."""
        if isinstance(error, AdapterFound):
            base = Row(error.base, error.base, adapter=error.adapter, words=f"With the adapter {row.title}.")
            self._choose(base)
            self.show_rows(base.key)
            self.notify(
                f"It goes on training the adapter {literal(error.adapter, 200)}.",
                title=f"{literal(error.base, 100)} is the model now",
                markup=False,
            )
        elif isinstance(error, RemoteCodeFound):
            self._ask_consent(row, error)
        else:
            self._ask_token(row.source)

    def _ask_consent(self, row: Row, error: RemoteCodeFound) -> None:
        from ..modals.confirm import ConfirmModal

        shown = [f"  {literal(name, 100)}" for name in error.files[:8]]
        if len(error.files) > 8:
            shown.append(f"  and {len(error.files) - 8} more")
        question = "\n".join(
            (
                "This model brings Python code, which would run on this machine with your rights: it can read your files "
                "and send them away. Read it first.",
                "",
                f"Repository  {literal(error.repo, 100)}",
                f"Revision    {literal(error.revision, 100)}",
                "Files",
                *shown,
                "",
                "A yes holds for exactly this revision.",
            )
        )

        def answered(answer: str | None) -> None:
            if answer == "yes":
                self.browsing.looks.pop(row.key, None)
                self._choose(row, remote_code=error.revision)

        answers = (("no", "No, run nothing"), ("yes", "Yes, run this code"))
        self.app.push_screen(ConfirmModal("Run code from this repository?", question, answers), answered)

    def _ask_token(self, repository: str) -> None:
        from ..modals.token import TokenModal

        def answered(used: bool | None) -> None:
            if not used:
                return
            self.finetui.token_changed()
            self.action_again()

        self.app.push_screen(TokenModal(repository), answered)

    # ── What the base calls ──

    def refresh_facts(self) -> None:
        warning = self.warning()
        self.once("warning", warning, partial(self._warn, warning))
        self.show_rows()
        if self._waiting and not self.wizard.model_busy:
            waiting, self._waiting = self._waiting, ""
            if self.wizard.model_error is None and waiting == self.lists.chosen_key:
                self.call_later(super().action_next)

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
        row = self.browser.list.row if self.browser.list.is_mounted else None
        if self._explained != SOURCE or row is None:
            super()._paint_explanation()
            return
        look, fits, download = self.look_of(row), self.fits(row), self.finetui.downloads.state(row.source)
        now = ("model", row, look, fits, download)
        self.once("explanation", now, lambda: self._detail(row, look, fits, download))

    def _detail(self, row, look, fits, download) -> None:  # noqa: ANN001
        again = getattr(self, "_detailed", None) == row.key
        self._detailed = row.key
        self.query_one(Explain).show(details.full(row, look, fits, download), stay=again)
        self.query_one(Brief).offer(
            (details.compact(row, look, fits, download), details.briefest(row, look, fits))
        )
        self.call_after_refresh(self.fit)

    def explain_content(self) -> Content | None:
        """The highlighted model in full, for the help."""
        row = self.browser.list.row
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

    @while_standing
    def _paint_problem(self) -> None:
        super()._paint_problem()
        if self.blocking() is not None:
            self._shown.pop("hint", None)
            return
        mid = glyphs().middot
        hint = (f"Enter continues {mid} {glyphs().down} next field", "$text-disabled")
        if self._waiting:
            hint = ("looking at it; Enter again goes on at once", "$accent")
        elif self._explained == SOURCE:
            hint = (f"Enter takes it {mid} Tab to the fields", "$text-disabled")
        self.once("hint", hint, lambda: self.query_one("#problem", Static).update(Content.assemble(hint)))

    def blocking(self) -> tuple[str, str] | None:
        block = super().blocking()
        if block is not None and block[0] == SOURCE:
            return "", block[1]
        return block

    def action_next(self) -> None:
        row = self.browser.list.row
        inside = self.focused is not None and self.browser in self.focused.ancestors
        if inside and row is not None and not self.is_chosen(row):
            self.take(row, go=True)
            return
        if self.wizard.problem(SOURCE):
            self.browser.take_focus()
            self.app.bell()
            return
        super().action_next()

    # ── Events ──

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
            self._waiting = ""

    def _stops(self) -> list[Widget]:
        return [w for w in super()._stops() if w.id != "model-tabs" or w.has_focus or self.focused is not None]

    # ── Actions ──

    def _acted_on(self) -> Row | None:
        """The row that a key is about."""
        return self.browser.list.row if self._explained == SOURCE else self.chosen

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("download", "cancel_download") and self.is_mounted and self.query(ModelBrowser):
            row = self._acted_on()
            if row is None or not _is_hub(row.source):
                return False
            live = self.finetui.downloads.live(row.source)
            if action == "cancel_download":
                return live
            return not live and row.source not in self.browsing.cached
        return super().check_action(action, parameters)

    def action_download(self) -> None:
        row = self._acted_on()
        if row is None:
            return
        error = self.look_of(row).error
        if error is not None and not error.code.startswith("hub-failed"):
            if details.offer(error):
                self._accept_offer(row, error)
            else:
                self.finetui.show_error(error)
            return
        revision = self.wizard.value("model.revision") if self.is_chosen(row) else row.revision
        code = self.wizard.value("model.remote_code") if self.is_chosen(row) else None
        self.finetui.downloads.start(row.source, cast("str | None", revision), cast("str | None", code))
        self.refresh_bindings()

    def action_cancel_download(self) -> None:
        row = self._acted_on()
        if row is not None:
            self.finetui.downloads.cancel(row.source)

    def action_filter(self) -> None:
        self.query_one("#model-filter").focus()

    def action_list(self, number: int) -> None:
        from ..widgets.models.rows import TABS

        self.turn_to(list(TABS)[number])

    def action_token(self) -> None:
        self._ask_token("")

    def action_again(self) -> None:
        """Forgets what was found, and looks anew."""
        self.browsing.looks.clear()
        self.lists.again(self.browsing.tab, self.browser.text)
        self.finetui.looking.inspect("model", at_once=True)
        row = self.browser.list.row
        if row is not None and not self.is_chosen(row):
            self._look_at(row)
        self.show_rows()

    def action_browse(self) -> None:
        from textual_fspicker import SelectDirectory

        start = Path(self.browser.text or ".").expanduser()
        start = start if start.is_absolute() else Path.cwd() / start
        while not start.is_dir() and start != start.parent:
            start = start.parent

        def picked(path: Path | None) -> None:
            if path is not None:
                self.browsing.filters["local"] = str(path)
                self.turn_to("local")

        self.app.push_screen(SelectDirectory(start, title="A folder with a model"), picked)


def _is_hub(source: str) -> bool:
    """Whether `source` is written as a hub id, without a look at the disk."""
    return source != DEMO and not source.startswith(("/", ".", "~")) and hub.is_id(source)
