"""Leaving while a run is at work: what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from ...core.errors import FinetuiError
from ...core.runs.control import Request, saves
from ...core.runs.state import RunStatus
from ...core.runs.store import RunFolder
from ...core.text import duration_words
from ..run_requests import stopping
from ..widgets.text import literal

if TYPE_CHECKING:
    from ..app import FinetuiApp

DETACH = ("detach", "Detach", "it goes on without this window")
SAVE = ("save", "Save and stop", "a checkpoint and the adapter are kept; it can be resumed")
STOP = ("stop", "Stop", "it ends after this step, and saves nothing more")
CANCEL = ("cancel", "Cancel", "stay here")


def answers(status: RunStatus) -> tuple[tuple[str, str, str], ...]:
    """The answers that a run allows: each with its title and what follows."""
    if saves(status):
        return DETACH, SAVE, STOP, CANCEL
    return DETACH, ("stop", "Stop", stopping(status)), CANCEL


class QuitModal(ModalScreen[str]):
    """Dismisses with `detach`, `save`, `stop` or `cancel`."""

    CSS_PATH = ["modal.tcss", "quit.tcss"]
    AUTO_FOCUS = "#answer-detach"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "answer('cancel')", "Cancel", id="leave.cancel"),
        Binding("down,right,tab", "app.focus_next", "Next answer", show=False, id="leave.next"),
        Binding(
            "up,left,shift+tab", "app.focus_previous", "Previous answer", show=False, id="leave.previous"
        ),
        Binding("d", "answer('detach')", "Detach", id="leave.detach"),
        Binding("s", "answer('save')", "Save and stop", id="leave.save"),
        Binding("x", "answer('stop')", "Stop", id="leave.stop"),
    ]

    def __init__(self, run: RunFolder, status: RunStatus) -> None:
        super().__init__()
        self.run = run
        self._status = status

    def compose(self) -> ComposeResult:
        status = self._status
        name = literal(status.name or self.run.id, 60)
        queued = status.state == "queued"
        where = f" at step {status.step:,} of {status.total_steps:,}" if status.total_steps else ""
        left = f", about {duration_words(status.eta_seconds)} left" if status.eta_seconds is not None else ""
        text = Content.assemble(
            (f"{name} {'waits in the queue' if queued else 'is still at work'}", "bold $accent"),
            f"\n\nIt is{f' at place {status.queue_place}' if queued else where or ' getting ready'}{left}.",
        )
        with Vertical(classes="modal-box"):
            yield Static(text, markup=False)
            with Vertical(id="answers"):
                for key, title, words in answers(status):
                    yield Button(
                        Content.assemble((title.ljust(15), "bold"), words), id=f"answer-{key}", compact=True
                    )
            back = Content.assemble(
                ("After Detach, Home shows it again, and so does\n", "$text-muted"),
                f"finetui attach {literal(self.run.id, 120)}",
            )
            yield Static(back, markup=False)

    @on(Button.Pressed)
    def _answered(self, event: Button.Pressed) -> None:
        event.stop()
        self.dismiss((event.button.id or "").removeprefix("answer-"))

    def action_answer(self, answer: str) -> None:
        if any(key == answer for key, _, _ in answers(self._status)):
            self.dismiss(answer)


def leave(app: FinetuiApp) -> None:
    """Ends the wizard; while the run that it shows is at work, asks first. Asking again leaves at once."""
    run = app.shown_run
    if run is None or app.leaving:
        app.exit(0)
        return

    def look() -> RunStatus:
        from ...core.runs import state

        return state.status(run)

    def seen(status: RunStatus) -> None:
        app.leaving = False
        if status.live:
            app.push_screen(QuitModal(run, status), lambda answer: _act(app, run, status, answer or "cancel"))
        else:
            app.exit(0)

    app.leaving = True
    app.in_background("leave", look, seen, lambda _: app.exit(0))


def _act(app: FinetuiApp, run: RunFolder, status: RunStatus, answer: str) -> None:
    if answer == "detach":
        app.exit(0, message=Text(f"{run.id} goes on.  finetui attach {run.id}  shows it again."))
    elif answer in ("save", "stop"):
        name: Request = "stop" if answer == "save" else "stop-now"

        def ask() -> str:
            from ...core.runs import control

            words = control.request(run, name)
            way = control.way_back(run, status, saved=name == "stop" and saves(status))
            return f"{run.id}: {words} {way}".rstrip()

        def failed(error: FinetuiError) -> None:
            if error.code == "run-not-running":
                app.exit(0)
            else:
                app.show_error(error)

        app.in_background("leave", ask, lambda words: app.exit(0, message=Text(words)), failed)
