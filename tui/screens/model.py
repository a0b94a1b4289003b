"""The model step: what is tuned. Four lists to choose from, and what is known of the highlighted model."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, cast

from textual import events, on
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from ...core.errors import FinetuiError
from ...core.model_facts import AdapterFound, ModelFacts, RemoteCodeFound
from ...core.recipe import DEMO
from ..theme import glyphs
from ..widgets.models import details
from ..widgets.models.browser import ModelBrowser
from ..widgets.models.listing import ModelList
from ..widgets.models.rows import TAB_ORDER, Row, is_hub
from ..widgets.text import literal
from .closing import while_standing
from .model_looking import SOURCE, ModelLooking


class ModelScreen(ModelLooking):
    """Highlighting looks, Enter chooses and goes on, space or a click chooses and stays."""

    CSS_PATH = ["step.tcss", "model.tcss"]
    step = "model"
    tagline = "what you start from"
    basic = ("model.precision", "model.max_length")
    hidden = (SOURCE,)
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "d", "download", "Download", id="model.download", tooltip="Download it now, and go on meanwhile"
        ),
        Binding("x", "cancel_download", "Stop download", id="model.cancel", tooltip="What was fetched stays"),
        Binding("slash", "filter", "Filter", key_display="/", id="model.filter", tooltip="Type to filter"),
        Binding("o", "order", "Order", show=False, id="model.order", tooltip="By size, or by family"),
        Binding(
            "f2", "browse", "Browse", show=False, id="model.browse", tooltip="Look for a folder with a model"
        ),
        Binding("t", "token", "Hub token", show=False, id="model.token", tooltip="Give a token for the hub"),
        Binding(
            "f5", "again", "Look again", show=False, id="model.again", tooltip="Ask the hub and the disk anew"
        ),
        *(
            Binding(str(n + 1), f"list({n})", name, show=False, id=f"model.list{n + 1}")
            for n, name in enumerate(("Recommended", "Hub search", "On this machine", "My runs"))
        ),
    ]

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
        if self.wizard.model_busy and self.waiting != row.key and row.source != DEMO:
            self.waiting = row.key
            self.paint()
            return
        self.waiting = ""
        self.go_on()

    def _choose(self, row: Row, facts: ModelFacts | None = None, remote_code: str | None = None) -> None:
        """Puts `row` into the draft and has it looked at."""
        if not is_hub(row.source) and row.source != DEMO:
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
            self.lists.take_shape(row.adapter)
        self.show_rows()

    def _accept_offer(self, row: Row, error: FinetuiError) -> None:
        """Does what the card of `error` offers."""
        if isinstance(error, AdapterFound):
            if is_hub(error.adapter):
                self._fetch_adapter(error)
            else:
                self._take_adapter(error.base, error.adapter)
        elif isinstance(error, RemoteCodeFound):
            self._ask_consent(row, error)
        else:
            self._ask_token(row.source)

    def _fetch_adapter(self, error: AdapterFound) -> None:
        """Fetches an adapter of the hub, then takes it with its base."""
        from ...core.model_adapter import fetch_adapter

        self.notify(f"Fetching {literal(error.adapter, 200)} {glyphs().ellipsis}", markup=False)
        self.finetui.in_background(
            "adapter fetch",
            lambda: str(fetch_adapter(error.adapter).folder),
            lambda folder: self._take_adapter(error.base, folder),
        )

    @while_standing
    def _take_adapter(self, base: str, adapter: str) -> None:
        """Chooses `base` with the adapter in the folder `adapter`, to go on training that."""
        self._choose(Row(base, base, adapter=adapter))
        self.browsing.filters[self.browsing.tab] = ""
        self.turn_to("recommended")  # where what is chosen stands first
        words = f"Training goes on with the adapter {literal(adapter, 200)}."
        self.notify(words, title=f"{literal(base, 100)} is the model now", markup=False)

    def _ask_consent(self, row: Row, error: RemoteCodeFound) -> None:
        from ..modals.consent import ask_consent

        def agreed() -> None:
            self.browsing.looks.pop(row.key, None)
            self._choose(row, remote_code=error.revision)

        ask_consent(self.app, error, agreed)

    def _ask_token(self, repository: str) -> None:
        from ..modals.token import TokenModal

        def answered(used: bool | None) -> None:
            if not used:
                return
            self.finetui.warming.restart()
            self.action_again()

        self.app.push_screen(TokenModal(repository), answered)

    # ── What the base calls ──

    def refresh_facts(self) -> None:
        super().refresh_facts()
        if self.waiting and not self.wizard.model_busy:
            waiting, self.waiting = self.waiting, ""
            if self.wizard.model_error is None and waiting == self.lists.chosen_key:
                self.call_later(self.go_on)

    @while_standing
    def _paint_problem(self) -> None:
        super()._paint_problem()
        if self.blocking() is not None:
            self._shown.pop("hint", None)
            return
        hint = self.hint(self.enter_words, f"{glyphs().down} next field")
        if self.waiting:
            hint = Content.styled("looking at it; Enter again goes on at once", "$accent")
        elif self._explained == SOURCE:
            hint = self.hint("Enter takes it", "Tab to the fields")
        self.once("hint", hint, lambda: self.query_one("#problem", Static).update(hint))

    def blocking(self) -> tuple[str, str] | None:
        block = super().blocking()
        if block is not None and block[0] == SOURCE:
            return "", block[1]
        return block

    def go_on(self) -> None:
        """On with what is chosen, or the card of what is wrong with it."""
        super().action_next()

    def action_next(self) -> None:
        row = self.browser.model_list.row
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

    def on_paste(self, event: events.Paste) -> None:
        """A path or an id that is pasted onto the list is meant for the line above it."""
        if isinstance(self.focused, ModelList):
            event.stop()
            self.action_filter()
            self.query_one("#model-filter").post_message(events.Paste(event.text))

    # ── Actions ──

    def _acted_on(self) -> Row | None:
        """The row that a key is about."""
        return self.browser.model_list.row if self._explained == SOURCE else self.chosen

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("download", "cancel_download") and self.is_mounted and self.query(ModelBrowser):
            row = self._acted_on()
            if row is None or not is_hub(row.source):
                return False
            live = self.finetui.downloads.live(row.source)
            if action == "cancel_download":
                return live
            error = self.look_of(row).error
            refused = error is not None and not details.passing(error)
            return not (live or refused or row.source in self.browsing.cached)
        return super().check_action(action, parameters)

    def action_download(self) -> None:
        row = self._acted_on()
        if row is None:
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
        self.set_focus(self.query_one("#model-filter"))  # at once: the next key may be here already

    def action_order(self) -> None:
        self.browsing.by_family = not self.browsing.by_family
        if self.browsing.tab == "recommended":
            self.show_rows()
        else:
            self.turn_to("recommended")

    def action_list(self, number: int) -> None:
        self.turn_to(TAB_ORDER[number])

    def action_token(self) -> None:
        self._ask_token("")

    def action_again(self) -> None:
        """Forgets what was found, and looks anew."""
        self.browsing.looks.clear()
        self.lists.again(self.browsing.tab, self.browser.text)
        self.finetui.looking.inspect("model", at_once=True)
        row = self.browser.model_list.row
        if row is not None and not self.is_chosen(row):
            self.look_at(row)
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
