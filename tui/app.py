"""The application: its state, the way between its screens, and what holds on every one of them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from textual._compositor import ChopsUpdate
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.signal import Signal
from textual.timer import Timer

from ..core import paths
from ..core.draft import Draft
from ..core.errors import FinetuiError
from ..core.recipe import Recipe
from ..core.secrets import redact
from . import signals
from .downloads import Downloads
from .inspecting import Inspecting
from .looking import Looking
from .theme import (
    ANSI,
    HORIZONTAL_BREAKPOINTS,
    VERTICAL_BREAKPOINTS,
    choose_glyphs,
    register_themes,
)
from .warming import Warming
from .widgets.sparing import Trimmed
from .wizard import Wizard

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..core.runs.lineage import Origin
    from ..core.runs.store import RunFolder
    from ..core.talk import Target

T = TypeVar("T")
SNAPSHOT_SECONDS = 2.0
SAVE_AFTER_SECONDS = 0.4


class FinetuiApp(App[int], inherit_bindings=False):
    """The wizard. Its exit value is the process's exit code."""

    TITLE = "finetui"
    CSS_PATH = "styles/app.tcss"
    ENABLE_COMMAND_PALETTE = True
    HORIZONTAL_BREAKPOINTS = HORIZONTAL_BREAKPOINTS
    VERTICAL_BREAKPOINTS = VERTICAL_BREAKPOINTS
    COMMAND_PALETTE_BINDING = "ctrl+p"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "question_mark",
            "help",
            "Help",
            key_display="?",
            id="app.help",
            tooltip="Explain this, and list the keys",
        ),
        Binding(
            "f1", "help", "Help", key_display="F1", id="app.help", tooltip="Explain this, and list the keys"
        ),
        Binding("q", "quit", "Quit", id="app.quit", tooltip="Leave finetui; running trainings go on"),
        Binding("ctrl+q", "quit", "Quit", id="app.quit", tooltip="Leave finetui; running trainings go on"),
        Binding("ctrl+c", "help_quit", show=False, system=True),
    ]

    def __init__(self, *, demo: bool = False, attach: Path | None = None, ascii: bool = False) -> None:
        """`demo`: Home offers the demo first. `attach`: a run folder to open at once. `ascii`: nothing but ASCII."""
        marks = choose_glyphs(True if ascii else None)
        super().__init__()
        if not marks.unicode:
            from .ascii import AsciiFilter

            self._filters.append(AsciiFilter())
        register_themes(self)
        self.demo = demo
        self.attach = attach
        self.wizard = Wizard()
        self.looking = Looking(self)
        self.downloads = Downloads(self)
        self.warming = Warming(self)
        self.inspecting = Inspecting(self)
        self.saved_draft: Draft | None = None
        self.changed: Signal[None] = Signal(self, "changed")
        """Published when the draft, the facts or the machine changed."""
        self.log_path = paths.data() / "finetui.log"
        self._tickets: dict[str, int] = {}
        self._save_timer: Timer | None = None
        self._save_failed = False
        self.shown_run: RunFolder | None = None
        """The run that was shown last; leaving asks about it while it is at work."""
        self.leaving = False

    # ── Start and end ──

    def on_mount(self) -> None:
        if os.environ.get("COLORTERM", "") == "" and os.environ.get("TERM", "").endswith(
            ("-16color", "linux", "ansi")
        ):
            self.theme = ANSI.name
        signals.listen(self)
        self.saved_draft = Draft.load()
        from .screens.home import HomeScreen

        self.push_screen(HomeScreen())
        if self.attach is not None:
            self.open_run(self.attach)
        self.looking.machine()
        self.set_interval(SNAPSHOT_SECONDS, self.looking.machine)

    async def on_unmount(self) -> None:
        self._flush_draft()
        self.inspecting.close()
        self.warming.close()

    async def action_quit(self) -> None:
        """Leave; while a run that was started or shown here is at work, ask what becomes of it."""
        from .modals.quit import leave

        leave(self)

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        super()._display(screen, Trimmed.of(renderable) if type(renderable) is ChopsUpdate else renderable)

    # ── Work off the event loop ──

    def in_background(
        self,
        group: str,
        work: Callable[[], T],
        done: Callable[[T], object],
        failed: Callable[[FinetuiError], object] | None = None,
    ) -> None:
        """Runs `work` in a thread of its own, then `done` with its result on the event loop.

        Only the newest call of a `group` is answered. A FinetuiError goes to `failed` (an error card by default);
        anything else is logged and becomes one. The threads are daemons: a hub that does not answer delays no exit.
        """
        ticket = self._tickets[group] = self._tickets.get(group, 0) + 1

        def answer(callback: Callable[[Any], object], value: object) -> None:
            if self._tickets.get(group) == ticket and self.is_running:
                callback(value)

        def run() -> None:
            try:
                result = work()
            except FinetuiError as error:
                self.call_later(answer, failed or self.show_error, error)
            except Exception as error:  # the thread's edge
                self.write_log(error)
                self.call_later(answer, failed or self.show_error, self.unexpected(error))
            else:
                self.call_later(answer, done, result)

        threading.Thread(target=run, name=group, daemon=True).start()

    def forget(self, group: str) -> None:
        """Lets no earlier call of `group` answer any more."""
        self._tickets[group] = self._tickets.get(group, 0) + 1

    # ── Errors ──

    def show_error(self, error: FinetuiError, then: Callable[[], object] | None = None) -> None:
        """Shows `error` as a card."""
        from .modals.card import ErrorCard

        def closed(_: None) -> None:
            if then is not None:
                then()

        self.push_screen(ErrorCard(error), closed)

    def unexpected(self, error: BaseException) -> FinetuiError:
        """A card for an error that nobody foresaw."""
        return FinetuiError(
            "Something went wrong inside finetui.",
            redact(f"{type(error).__name__}: {error}")[:300],
            f"Your draft and your runs are safe. The details are in {self.log_path}.",
            code="unexpected",
        )

    def write_log(self, error: BaseException) -> None:
        """Appends the traceback to finetui.log (0600), tokens hidden."""
        with contextlib.suppress(OSError):
            paths.private_dir(self.log_path.parent)
            handle = os.open(self.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(handle, "a", encoding="utf-8", errors="replace") as file:
                file.write(time.strftime("%Y-%m-%d %H:%M:%S\n"))
                file.write(redact("".join(traceback.format_exception(error))) + "\n")

    def _handle_exception(self, error: Exception) -> None:
        """No traceback on the screen: it goes to the log, and finetui ends with words."""
        self.write_log(error)
        if self._exception is None:
            self._exception = error
            self._exception_event.set()
        card = error if isinstance(error, FinetuiError) else self.unexpected(error)
        self._return_code = 1
        from rich.text import Text

        if not self._exit_renderables:
            self._exit_renderables.append(Text(f"finetui: {card.what}\n{card.why}\n{card.fix}".rstrip()))
        self._close_messages_no_wait()

    # ── Between the screens ──

    @property
    def _background_screens(self) -> list[Screen[Any]]:
        """The screens that can be seen through the one in front: none through one that covers all.

        Textual 8.2 counts the next one below even then, and each of its timers has the whole terminal sent again.
        """
        stack = self._screen_stack
        return [] if stack and stack[-1].styles.background.a == 1 else super()._background_screens

    def go(self, step: str) -> None:
        """Shows `step`, in place of the step that is shown now."""
        from .screens import screen_of

        screen = screen_of(step)
        if getattr(self.screen, "step", ""):
            self.switch_screen(screen)
        else:
            self.push_screen(screen)

    def go_home(self) -> None:
        """Back to Home, whatever is above it."""
        self.inspecting.close()
        while len(self.screen_stack) > 2:
            self.pop_screen()

    def begin(
        self,
        recipe: Recipe | None = None,
        draft: Draft | None = None,
        step: str = "model",
        origin: Origin | None = None,
    ) -> None:
        """Starts the wizard at `step` with `recipe`, or goes on with `draft`. `origin`: the run that the recipe is of."""
        self.inspecting.close()
        self.wizard = Wizard(draft=draft or Draft(recipe), machine=self.wizard.machine, origin=origin)
        self.saved_draft = self.wizard.draft
        self.draft_changed("")
        self.looking.inspect("model", at_once=True)
        self.looking.inspect("dataset", at_once=True)
        self.warming.start()
        self.go(step)

    def start_run(self) -> None:
        """Starts the training of the draft and opens its run."""
        from .starting import start_draft

        start_draft(self)

    def started(self, run: RunFolder) -> None:
        """The draft has become `run`: it is no draft any more, and what was warmed up for it may be at work."""
        self.warming.look()
        self.saved_draft = None
        if self._save_timer is not None:
            self._save_timer.stop()
            self._save_timer = None
        with contextlib.suppress(OSError):
            paths.draft().unlink()
        self.open_run(run.path)

    def open_run(self, folder: Path) -> None:
        """Shows the run in `folder`."""
        from .screens import run_screen

        self.inspecting.close()
        screen = run_screen(folder)
        self.shown_run = screen.run
        if getattr(self.screen, "step", ""):
            self.switch_screen(screen)
        else:
            self.push_screen(screen)

    def open_chat(self, folder: Path) -> None:
        """Opens a talk with the run in `folder`; a card where it has nothing to talk to yet."""

        def found(target: Target) -> None:
            from .screens.chat import ChatScreen

            self.push_screen(ChatScreen(target))

        def work() -> Target:
            from ..core import talk
            from ..core.runs.store import RunFolder

            return talk.of_run(RunFolder(folder))

        self.in_background("chat", work, found)

    # ── The draft ──

    def draft_changed(self, path: str) -> None:
        """Call it after each change of the draft: it is saved soon, and what depends on `path` is looked at again."""
        if self._save_timer is None:
            self._save_timer = self.set_timer(SAVE_AFTER_SECONDS, self._save_draft)
        if path in ("model.source", "model.revision", "model.remote_code"):
            self.looking.inspect("model")
        elif path.startswith("dataset."):
            self.looking.inspect("dataset")
        self.inspecting.refresh()
        self.changed.publish(None)

    def _save_draft(self) -> None:
        self._save_timer = None
        self.in_background("draft", self.wizard.draft.save, self._saved, self._not_saved)

    def _saved(self, _: None) -> None:
        self._save_failed = False

    def _not_saved(self, error: FinetuiError) -> None:
        if not self._save_failed:  # say it once, not at every key
            self._save_failed = True
            self.notify(f"{error.why} {error.fix}", title=error.what, severity="warning", markup=False)

    def _flush_draft(self) -> None:
        if self._save_timer is not None:
            self._save_timer = None
            with contextlib.suppress(FinetuiError):
                self.wizard.draft.save()

    # ── Actions on every screen ──

    def action_help(self) -> None:
        """Explain the focused field, and list the keys."""
        from .modals.help import HelpModal

        if not isinstance(self.screen, HelpModal):
            self.push_screen(HelpModal(self.screen))

    def get_key_display(self, binding: Binding) -> str:
        """How a key is written: `F3`, not `f3`."""
        shown = super().get_key_display(binding)
        return shown.upper() if shown[:1] == "f" and shown[1:].isdigit() else shown

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Every action of the screen in front, and the ways to go."""
        from .palette import commands

        return commands(self, screen)

    def open_learn(self) -> None:
        """Shows the primer."""
        from .screens.learn import LearnScreen

        self.push_screen(LearnScreen())

    def open_doctor(self) -> None:
        """Shows the checks of this machine."""
        from .screens.doctor import DoctorScreen

        self.push_screen(DoctorScreen())


def run(*, demo: bool = False, attach: Path | None = None, ascii: bool = False) -> int:
    """Runs the wizard in this terminal. Returns the exit code."""
    app = FinetuiApp(demo=demo, attach=attach, ascii=ascii)
    signals.listen_early()
    code = app.run()
    return code if code is not None else (app.return_code or 0)
