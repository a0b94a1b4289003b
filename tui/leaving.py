"""The three places where an export can go, alike for the screen: plan it, start it, look how it stands, stop it."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..core.errors import FinetuiError
from ..core.runs.store import RunFolder
from ..core.text import bytes_words, duration_words


@dataclass(frozen=True)
class Standing:
    """How a piece of work stands. `share` is from 0 to 1, None where it is not known."""

    share: float | None = None
    words: str = ""
    live: bool = True
    error: FinetuiError | None = None
    command: str = ""
    """What to do next, once it is done."""


class Work(Protocol):
    """Something under way. `outlives`: it goes on when the wizard ends."""

    outlives: bool

    def poll(self) -> Standing:
        """How it stands; may read a small file."""
        ...

    def stop(self) -> None:
        """Asks it to end."""
        ...


@dataclass(frozen=True)
class Planned:
    """What would be done, and how to do it. `replaces` names what goes, where something does."""

    lines: tuple[str, ...]
    start: Callable[[], Work]
    verb: str
    replaces: bool = False


class Place(Protocol):
    """A place where exports can go."""

    key: str
    title: str
    about: str
    asks: str
    """What its name is."""

    def suggested(self, run: RunFolder) -> str:
        """A name to begin with; empty where the place finds one itself."""
        ...

    def takes(self, formats: Sequence[str]) -> str:
        """Which of `formats` goes there where nobody says more; empty where none can."""
        ...

    def wants_base(self, formats: Sequence[str]) -> bool:
        """Whether what it takes of `formats` goes over a base model, which is to be named."""
        ...

    def plan(
        self, run: RunFolder, name: str, formats: Sequence[str], *, public: bool, replace: bool, base: str
    ) -> Planned:
        """What would be done. `base` is what an adapter goes over. Blocking. Raises FinetuiError."""
        ...


class Hub:
    key, title = "hub", "Hub"
    about = "A repository of yours on the hub, private unless you tick the box. It goes on when you leave this window."
    asks = "Repository"

    def suggested(self, run: RunFolder) -> str:
        return ""

    def takes(self, formats: Sequence[str]) -> str:
        return next(iter(formats), "")

    def wants_base(self, formats: Sequence[str]) -> bool:
        return False

    def plan(
        self, run: RunFolder, name: str, formats: Sequence[str], *, public: bool, replace: bool, base: str
    ) -> Planned:
        from ..core import upload

        made = upload.plan(run, formats, name, public=public, replace=replace)
        return Planned(
            tuple(made.lines()),
            lambda: Uploading(upload.Upload.start(made), made.url),
            "Upload publicly" if not made.private else "Upload privately",
            bool(made.others),
        )

    @staticmethod
    def under_way(run: RunFolder) -> Uploading | None:
        """An upload of the run that is at work, whoever started it."""
        from ..core import hub
        from ..core.upload import Upload

        live = (one for one in Upload.of_run(run) if one.poll().live)
        return next((Uploading(one, hub.address(one.repo, "model")) for one in live), None)


class Ollama:
    key, title = "ollama", "Ollama"
    about = "A GGUF, with this model's own template, stops and system prompt. Without Ollama here: the commands for where it is."
    asks = "Model name"

    def suggested(self, run: RunFolder) -> str:
        from ..core import recipe_file

        return recipe_file.load(run.recipe).name.lower()

    def takes(self, formats: Sequence[str]) -> str:
        from ..core import ollama

        ggufs = [format for format in formats if format.startswith("gguf_")]
        return next((f for f in (*ollama.PREFERRED, *ggufs, "adapter_gguf") if f in formats), "")

    def wants_base(self, formats: Sequence[str]) -> bool:
        return self.takes(formats) == "adapter_gguf"

    def plan(
        self, run: RunFolder, name: str, formats: Sequence[str], *, public: bool, replace: bool, base: str
    ) -> Planned:
        from ..core import ollama

        wanted = self.takes(formats)
        made = ollama.plan(
            run, wanted or (formats[0] if formats else ""), name, base if self.wants_base(formats) else ""
        )
        lines = tuple(made.lines())
        command = " && ".join(made.commands)
        if made.program is None:
            return Planned(
                (*lines, "Where Ollama is:", *made.commands), lambda: Told(command), "Show the commands"
            )

        def work(tell: Callable[[float | None, str], None]) -> str:
            tell(None, "Ollama takes it in")
            ollama.create(made, lambda line: tell(None, line), lambda: tell(None, ""))
            return made.commands[1]

        return Planned(lines, lambda: InThread("Made.", work), "Make it in Ollama", made.replaces)


class Folder:
    key, title = "folder", "Folder"
    about = "A folder that can be carried elsewhere: with SHA-256 sums, a card and the commands; read back and compared."
    asks = "Folder"

    def suggested(self, run: RunFolder) -> str:
        from ..core import recipe_file

        return str(Path.home() / recipe_file.load(run.recipe).name)

    def takes(self, formats: Sequence[str]) -> str:
        return next(iter(formats), "")

    def wants_base(self, formats: Sequence[str]) -> bool:
        return False

    def plan(
        self, run: RunFolder, name: str, formats: Sequence[str], *, public: bool, replace: bool, base: str
    ) -> Planned:
        from ..core import copying

        made = copying.plan(run, Path(name), formats)

        def work(tell: Callable[[float | None, str], None]) -> str:
            def told(done: int, total: int) -> None:
                tell(done / max(1, total), "Copying and comparing")

            copying.copy(made, told)
            return f"cd {shlex.quote(str(made.target))} && sha256sum -c {copying.SUMS}"

        return Planned(
            tuple(made.lines()), lambda: InThread(f"Copied to {made.target}.", work), "Copy", made.replaces
        )


PLACES: tuple[Place, ...] = (Hub(), Ollama(), Folder())


class Uploading:
    """An upload, which has a process of its own."""

    outlives = True

    def __init__(self, one: Any, url: str) -> None:
        self._one, self._url = one, url

    def poll(self) -> Standing:
        state = self._one.poll()
        if state.error is not None:
            return Standing(live=False, error=state.error)
        if state.state == "cancelled":
            return Standing(
                live=False, words="Stopped. The same upload goes on: what has arrived is not sent twice."
            )
        if state.state == "done":
            return Standing(1.0, "Uploaded and compared. It is at:", False, command=self._url)
        share = state.done_bytes / state.total_bytes if state.total_bytes else None
        speed = f", {bytes_words(state.bytes_per_second)}/s" if state.bytes_per_second else ""
        left = f", {duration_words(state.eta_seconds)} left" if state.eta_seconds is not None else ""
        told = f"{bytes_words(state.done_bytes)} of {bytes_words(state.total_bytes)}{speed}{left}"
        return Standing(share, f"Uploading {told if share is not None else ''}".rstrip())

    def stop(self) -> None:
        self._one.cancel()


class Told:
    """Nothing to do here but to say the command."""

    outlives = False

    def __init__(self, command: str) -> None:
        self._command = command

    def poll(self) -> Standing:
        return Standing(1.0, "Run this where Ollama is.", False, command=self._command)

    def stop(self) -> None: ...


class _Stopped(Exception):
    """The person ended it."""


class InThread:
    """Work of this process, which ends with it."""

    outlives = False

    def __init__(self, done: str, work: Callable[[Callable[[float | None, str], None]], str]) -> None:
        """`work` calls what it is given with the share that is done and words, and returns the next command."""
        self._standing = Standing()
        self._stop = threading.Event()

        def tell(share: float | None, words: str) -> None:
            if self._stop.is_set():
                raise _Stopped
            self._standing = Standing(share, words or self._standing.words)

        def run() -> None:
            try:
                command = work(tell)
                self._standing = Standing(1.0, done, False, command=command)
            except _Stopped:
                self._standing = Standing(None, "Stopped. Nothing half-made was left.", False)
            except FinetuiError as error:
                self._standing = Standing(live=False, error=error)
            except Exception as error:  # the thread's edge
                words = f"{type(error).__name__}: {error}"[:300]
                self._standing = Standing(live=False, error=FinetuiError("It failed.", words, "Try again."))

        threading.Thread(target=run, name="leaving", daemon=True).start()

    def poll(self) -> Standing:
        return self._standing

    def stop(self) -> None:
        self._stop.set()
