"""Reads the whole dataset as the trainer will, in a process of its own, and tells how far it is and what it found."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from textual.timer import Timer

from ..core.errors import FinetuiError
from ..core.fields import fields
from ..core.recipe import Recipe

if TYPE_CHECKING:
    from ..core.dataset_inspect import Inspector
    from ..core.dataset_ledger import Ledger
    from .app import FinetuiApp

T = TypeVar("T")
State = Literal["idle", "waiting", "reading", "done", "cancelled", "failed"]

START_AFTER_SECONDS = 0.4
"""How long the choices must stand still before a process is started for them."""

POLL_SECONDS = 0.25
PREPARE_SECONDS = 180.0

READ_PATHS = ("model.source", "model.revision", "model.max_length", "training.seed")
"""What an inspection depends on, besides every field of the dataset."""


@dataclass(frozen=True)
class Inspection:
    """What is known now. `ledger` is partial while the state is reading; None until the first rows have been counted."""

    state: State = "idle"
    stage: str = ""
    share: float = 0.0
    rows_read: int = 0
    ledger: Ledger | None = None
    error: FinetuiError | None = None
    ready: bool = False
    """Rows can be asked for."""

    @property
    def complete(self) -> Ledger | None:
        """The ledger once every row is counted."""
        return self.ledger if self.state == "done" else None

    @property
    def gate(self) -> FinetuiError | None:
        """Why training must not start on this; None where it may, or where that is not known yet."""
        if self.complete is None or not self.complete.stops:
            return None
        finding = self.complete.stops[0]
        do = finding.actions[0].label if finding.actions else "Look at the ledger"
        return FinetuiError(
            finding.sentence,
            finding.why,
            f"{do.rstrip('.')} (F4 on the dataset step does it).",
            code=f"gate-{finding.code}",
        )


class Inspecting:
    """Keeps one inspection of what the draft names; a change of the draft ends it and starts another.

    It runs from the first visit to the dataset step until the wizard is left. `app.wizard.inspection` is what it knows.
    """

    def __init__(self, app: FinetuiApp) -> None:
        self._app = app
        self._inspector: Inspector | None = None
        self._key: str = ""
        self._serial = 0
        self._start_timer: Timer | None = None
        self._poll_timer: Timer | None = None
        self._lock = threading.Lock()

    # ── What is wanted ──

    def refresh(self) -> None:
        """Call it when the draft or what is known of it changed."""
        wizard = self._app.wizard
        recipe = self.recipe() if "dataset" in wizard.visited else None
        known = wizard.model_facts is not None and wizard.dataset_facts is not None
        busy = wizard.model_busy or wizard.dataset_busy
        if recipe is None or (not known and not busy):
            self.close()
            return
        key = recipe.model_dump_json()
        if key == self._key:
            return
        if busy or not known:  # what stands there is of another choice
            if self._key:
                self.close()
            return
        self.close()
        self._key = key
        self._show(Inspection("waiting"))
        self._start_timer = self._app.set_timer(START_AFTER_SECONDS, lambda: self._start(recipe))

    def recipe(self) -> Recipe | None:
        """The draft's model and dataset in an otherwise default recipe; None while one of them is wrong."""
        draft = self._app.wizard.draft
        sections: dict[str, dict[str, object]] = {"model": {}, "dataset": {}, "training": {}}
        for path in (*(spec.path for spec in fields("dataset")), *READ_PATHS):
            if path in draft.problems:
                return None
            section, name = path.split(".")
            sections[section][name] = draft[path]
        try:
            return Recipe.model_validate(sections)
        except ValueError:
            return None

    # ── The process ──

    def _start(self, recipe: Recipe) -> None:
        from ..core.dataset_inspect import Inspector

        self._start_timer = None
        serial = self._serial

        def work() -> Inspector:
            inspector = Inspector.start(recipe)
            with self._lock:
                if serial == self._serial:
                    self._inspector = inspector
                    return inspector
            inspector.close()
            raise FinetuiError("The choices changed.", code="cancelled")

        def started(inspector: Inspector) -> None:
            if inspector is self._inspector:
                self._poll()
                if self._poll_timer is None and self._inspector is not None:
                    self._poll_timer = self._app.set_interval(POLL_SECONDS, self._poll)

        self._app.in_background("inspector", work, started, self._failed)

    def _failed(self, error: FinetuiError) -> None:
        if error.code != "cancelled":
            self._show(Inspection("failed", error=error))

    def _poll(self) -> None:
        inspector, before = self._inspector, self._app.wizard.inspection
        if inspector is None or before.state == "failed":
            return
        now = inspector.poll()
        state: State = before.state
        if now.error is not None:
            state = "failed"
        elif (now.ledger is not None and now.ledger.complete) or before.complete is not None:
            state = "done"
        elif before.state != "cancelled":
            state = "reading" if now.rows_read or now.ready else "waiting"
        ledger = before.ledger if now.ledger is None or before.complete is not None else now.ledger
        self._show(Inspection(state, now.stage, now.share, now.rows_read, ledger, now.error, now.ready))
        over = state == "failed" or (now.ledger is not None and now.ledger.complete)
        if over and self._poll_timer is not None:
            self._poll_timer.stop()
            self._poll_timer = None

    def _show(self, inspection: Inspection) -> None:
        if inspection != self._app.wizard.inspection:
            self._app.wizard.inspection = inspection
            self._app.changed.publish(None)

    def ask(
        self,
        group: str,
        question: Callable[[Inspector], T],
        done: Callable[[T], object],
        failed: Callable[[FinetuiError], object] | None = None,
    ) -> bool:
        """Puts `question` to the inspector in a thread; the newest answer of a `group` wins. False where none is at work."""
        inspector = self._inspector
        if inspector is None:
            return False
        self._app.in_background(f"inspector-{group}", lambda: question(inspector), done, failed)
        return True

    def cancel(self) -> None:
        """Ends the reading; what was read can still be looked at."""
        inspection = self._app.wizard.inspection
        if inspection.state in ("waiting", "reading"):
            self._show(replace(inspection, state="cancelled"))
            self.ask("cancel", lambda inspector: inspector.cancel(), lambda _: None, lambda _: None)

    def rest(self) -> None:
        """Ends a process that has counted everything, and keeps what it found; `wake` brings it back for its rows."""
        if self._app.wizard.inspection.state == "done" and self._inspector is not None:
            self._end()
            self._app.wizard.inspection = replace(self._app.wizard.inspection, ready=False)

    def wake(self) -> None:
        """Starts the process again after a rest."""
        recipe = self.recipe()
        if recipe is not None and self._key == recipe.model_dump_json() and self._inspector is None:
            if self._app.wizard.inspection.state == "done":
                self._start(recipe)
        else:
            self.refresh()

    def again(self) -> None:
        """Starts anew after a cancel or an error."""
        self._key = ""
        self.refresh()

    def close(self, preparing: bool = False) -> None:
        """Ends the process, whatever it is doing, and forgets what it found. With `preparing`, one that is still making
        the demo's model ready, which a training needs next, may finish that first."""
        waiting = preparing and self._app.wizard.inspection.state == "waiting"
        self._end(PREPARE_SECONDS if waiting else 0.0)
        self._key = ""
        self._show(Inspection())

    def _end(self, patience_seconds: float = 0.0) -> None:
        for timer in (self._start_timer, self._poll_timer):
            if timer is not None:
                timer.stop()
        self._start_timer = self._poll_timer = None
        with self._lock:
            self._serial += 1
            inspector, self._inspector = self._inspector, None
        self._app.forget("inspector")
        if inspector is not None:
            threading.Thread(target=_close, args=(inspector, patience_seconds), daemon=True).start()


def _close(inspector: Inspector, patience_seconds: float) -> None:
    until = time.monotonic() + patience_seconds
    while time.monotonic() < until:
        now = inspector.poll()
        if now.ready or now.error is not None:
            break
        time.sleep(POLL_SECONDS)
    with contextlib.suppress(FinetuiError):
        inspector.close()
