"""What stands in the four lists of the model screen, and how it gets there: each in a thread, the newest answer only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from textual.timer import Timer

from ...core import hub, model
from ...core.errors import FinetuiError
from ...core.recipe import DEMO
from ..widgets.models.rows import (
    Browsing,
    Look,
    Row,
    Tab,
    catalog_rows,
    demo_row,
    hit_row,
    is_typed,
    local_row,
    row_key,
    run_rows,
    typed_row,
)
from ..widgets.text import literal

if TYPE_CHECKING:
    from ..app import FinetuiApp

SEARCH_AFTER_SECONDS = 0.3
"""How long the person must pause before the hub is searched."""
MOST_HITS = 40


def look(row: Row) -> Look:
    """Looks at `row`'s model and adapter. Blocking: in a thread. What is wrong is part of the answer."""
    from ...core.model_adapter import read_adapter

    facts = None
    try:
        facts = model.inspect(row.source, row.revision)
        adapter = read_adapter(Path(row.adapter)) if row.adapter else None
    except FinetuiError as error:
        return Look(facts, error)
    return Look(facts, adapter=adapter)


class ModelLists:
    """The rows of each list. `changed` is called when something came in."""

    def __init__(self, app: FinetuiApp, changed: Callable[[], object]) -> None:
        self._app = app
        self._changed = changed
        self._timer: Timer | None = None
        self._loading: set[str] = set()
        self._search_error: FinetuiError | None = None

    @property
    def browsing(self) -> Browsing:
        return self._app.wizard.models

    @property
    def chosen_key(self) -> str:
        """The key of what the draft names."""
        adapter = self._app.wizard.value("model.adapter")
        return row_key(str(self._app.wizard.value("model.source")).strip(), str(adapter) if adapter else None)

    def chosen(self) -> Row:
        """What the draft names, with what the lists know of it."""
        wizard = self._app.wizard
        source, adapter = str(wizard.value("model.source")).strip(), wizard.value("model.adapter")
        made = typed_row(source) if source != DEMO else demo_row()
        if adapter:
            words = f"Goes on training the adapter {literal(adapter, 200)}."
            made = replace(made, adapter=str(adapter), words=words)
        rows = [*catalog_rows(), *self._local(), *self._runs()]
        for hits in self.browsing.hits.values():
            rows += [hit_row(hit) for hit in hits]
        return next((row for row in rows if row.key == made.key), made)

    def rows(self, tab: Tab, text: str) -> list[Row]:
        """The rows of `tab`, filtered by what is typed, with what is typed as the first where it is a path or an id."""
        words = text.lower().split()
        if tab == "hub":
            rows = [hit_row(hit) for hit in self.browsing.hits.get(text, ())]
        else:
            rows = {"recommended": self._recommended, "local": self._local, "runs": self._runs}[tab]()
            if tab == "recommended" and not words:
                if all(row.key != self.chosen_key for row in rows):
                    rows.insert(0, self.chosen())
            rows = [row for row in rows if row.matches(words)]
        if text and is_typed(text) and tab != "runs":
            same = [row for row in rows if row.source == text and row.adapter is None]
            rows = [*(same or [typed_row(text)]), *(row for row in rows if row not in same)]
        return rows

    def _recommended(self) -> list[Row]:
        return list(catalog_rows(self.browsing.by_family))

    def _local(self) -> list[Row]:
        return [local_row(found) for found in self.browsing.local or ()]

    def _runs(self) -> list[Row]:
        return [row for run in self.browsing.runs or () for row in run_rows(run)]

    def status(self, tab: Tab, text: str) -> tuple[str, str]:
        """A few words on `tab`, and their mood."""
        if tab in self._loading:
            return {"hub": "searching", "local": "looking at the disk", "runs": "reading the runs"}[
                tab
            ], "busy"
        if tab == "hub":
            if self._search_error is not None:
                offline = self._search_error.code == "hub-offline"
                return ("offline" if offline else "the hub does not answer"), "bad"
            hits = self.browsing.hits.get(text)
            return (f"{len(hits)} found" if hits else "", "")
        if hub.is_offline():
            return "offline", ""
        if tab == "recommended":
            return ("o: by size" if self.browsing.by_family else "o: by family"), ""
        return "", ""

    def empty(self, tab: Tab, text: str) -> str:
        """What is said where `tab` has no rows."""
        if tab in self._loading:
            return ""
        if tab == "hub":
            error = self._search_error
            if error is not None:
                return f"{error.what} {error.why} {error.fix}"
            if len(text) < 2:
                return "Type what you look for: a family such as qwen3, a language, a task. Or a whole id, owner/name."
            return (
                f"The hub has no text model with safetensors that matches {literal(text, 60)}."
                if text in (self.browsing.hits)
                else ""
            )
        if text:
            return f"Nothing here matches {literal(text, 60)}. Esc empties the filter."
        if tab == "local":
            return (
                "No model is on this machine yet: none in the hub's cache, in this folder or in the models' folder. "
                "F2 browses to one; under Recommended, d downloads one."
            )
        return (
            "No finished run yet. Once one is done you can go on from it: its adapter, or its merged model."
        )

    def take_shape(self, adapter: str) -> None:
        """An adapter that is gone on with keeps its rank, alpha and layers: puts them into the draft."""
        from ...core.model_adapter import AdapterFacts, read_adapter

        wizard = self._app.wizard

        def found(facts: AdapterFacts) -> None:
            if wizard.value("model.adapter") != adapter:
                return
            for name in ("rank", "alpha", "target_modules", "rslora"):
                wizard.set(f"lora.{name}", getattr(facts, name))
            self._app.draft_changed("lora")

        self._app.in_background("adapter", lambda: read_adapter(Path(adapter)), found)

    # ── Getting them ──

    def open(self, tab: Tab, text: str) -> None:
        """`tab` comes to the front: what it needs is fetched."""
        if tab == "local":
            self.load_local()
        elif tab == "runs":
            self._load_runs()
        elif tab == "hub":
            self.typed(tab, text)

    def again(self, tab: Tab, text: str) -> None:
        """Fetches `tab` anew."""
        self.browsing.hits.pop(text, None)
        self.browsing.local = None
        self.browsing.runs = None
        self.load_local()
        self.open(tab, text)

    def typed(self, tab: Tab, text: str) -> None:
        """Searches the hub for `text`, after a moment without another key."""
        if tab != "hub":
            return
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        self._app.forget("model search")
        self._loading.discard("hub")
        self._search_error = None
        if len(text) < 2 or text in self.browsing.hits:
            return
        self._loading.add("hub")
        self._timer = self._app.set_timer(SEARCH_AFTER_SECONDS, lambda: self._search(text))

    def _search(self, text: str) -> None:
        from ...core import model_search

        def found(hits: tuple[model_search.Hit, ...]) -> None:
            self._loading.discard("hub")
            self.browsing.hits[text] = hits
            self._changed()

        def failed(error: FinetuiError) -> None:
            self._loading.discard("hub")
            self._search_error = error
            self._changed()

        self._app.in_background("model search", lambda: model_search.search(text, MOST_HITS), found, failed)

    def load_local(self) -> None:
        """Looks at what is on this machine, unless that is known."""
        if self.browsing.local is not None or "local" in self._loading:
            return
        from ...core import model_local

        self._loading.add("local")
        folders = [Path(text).expanduser() for text in self.browsing.named]

        def found(models: tuple[model_local.LocalModel, ...]) -> None:
            self._loading.discard("local")
            self.browsing.local = models
            self._changed()

        def failed(error: FinetuiError) -> None:
            found(())
            self._app.show_error(error)

        self._app.in_background("model local", lambda: model_local.local_models(folders), found, failed)

    def _load_runs(self) -> None:
        if "runs" in self._loading:
            return
        from ...core import model_runs

        if self.browsing.runs is None:
            self._loading.add("runs")

        def found(runs: tuple[model_runs.RunModel, ...]) -> None:
            self._loading.discard("runs")
            self.browsing.runs = runs
            self._changed()

        self._app.in_background("model runs", model_runs.run_models, found)
