"""The inspector: a process of its own that reads a dataset as the trainer will, counts everything, and shows any row.

The process (`core.worker.inspect`) holds the tokenizer and the rows; this class speaks to it in JSON lines and may kill it
at any time, so that neither a hostile file nor a hostile template reaches the wizard. No torch in either.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import TypeAdapter

from .dataset_ledger import Ledger, SeenRow
from .errors import FinetuiError
from .recipe import Recipe
from .secrets import redact
from .text import one_line

Kind = Literal["longest", "shortest", "cut", "dropped", "unlearned", "flagged"]

REQUEST_SECONDS = 30.0
"""How long a request waits for its answer; a clean copy and a search may take longer."""

LONG_REQUEST_SECONDS = 600.0

PATIENCE_SECONDS = 60.0
"""How long a batch of rows may keep the chat template busy before it counts as stuck."""

_SILENT_SECONDS = 30.0
"""A process that says nothing for so long hangs: it says that it is alive twice a second."""

_LEDGER: TypeAdapter[Ledger] = TypeAdapter(Ledger)
_ROW: TypeAdapter[SeenRow] = TypeAdapter(SeenRow)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the inspection is. `ready`: rows can be asked for (the first ones have been read)."""

    rows_read: int = 0
    share: float = 0.0
    """Of the source, 0 to 1."""
    ledger: Ledger | None = None
    """Partial about every half second, complete at the end."""
    error: FinetuiError | None = None
    """The inspection has ended with this; nothing more comes."""
    ready: bool = False
    stage: str = ""
    """In words, while it is not ready: `loading the tokenizer`."""


@dataclass(frozen=True, slots=True)
class CleanCopy:
    """What `write_clean` wrote."""

    path: Path
    written: int
    left_out: int


class Inspector:
    """One inspection of one recipe's dataset with its model's tokenizer.

    `poll` never blocks. All other calls block up to a time limit and raise FinetuiError (inspect-slow, inspect-ended,
    row-missing, or the inspection's own error): call them from a thread. Closing is safe at any time and from any thread.
    """

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes], patience_seconds: float) -> None:
        self._process = process
        self._errors = errors
        self._silent_seconds = max(_SILENT_SECONDS, patience_seconds)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._progress = Progress(stage="starting")
        self._answers: dict[int, dict[str, Any]] = {}
        self._wanted: set[int] = set()
        self._last_id = 0
        self._heard = time.monotonic()
        self._done = False
        self._closed = False
        threading.Thread(target=self._listen, name=f"inspect-{process.pid}", daemon=True).start()

    @classmethod
    def start(cls, recipe: Recipe, patience_seconds: float = PATIENCE_SECONDS) -> Inspector:
        """Starts the process and returns at once. Relative paths of the recipe count from this process's folder.

        Raises FinetuiError (inspect-failed) where no process can be started.
        """
        from .runs.launch import worker_environment

        environment = worker_environment()
        cores = min(8, os.cpu_count() or 1)
        environment.update(
            RAYON_NUM_THREADS=str(cores),
            MALLOC_ARENA_MAX="4",
            OMP_NUM_THREADS="1",
            TRANSFORMERS_VERBOSITY="error",
        )
        errors = tempfile.TemporaryFile()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "finetui.core.worker.inspect"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            errors.close()
            raise FinetuiError(
                "The inspection could not be started.",
                f"{error.strerror or error}.",
                "The machine may be out of processes or memory: end something, then try again.",
                code="inspect-failed",
            ) from error
        made = cls(process, errors, patience_seconds)
        made._send({"recipe": recipe.model_dump(mode="json"), "patience": patience_seconds})
        return made

    def poll(self) -> Progress:
        """The newest state, at once."""
        with self._lock:
            silent = time.monotonic() - self._heard > self._silent_seconds
            if silent and not self._closed and self._progress.error is None and self._process.poll() is None:
                self._fail(
                    FinetuiError(
                        "The inspection hangs.",
                        f"Its process has said nothing for {self._silent_seconds:.0f} seconds.",
                        "The model's chat template or a row keeps it busy: choose another model, or look at the rows.",
                        code="inspect-stuck",
                    )
                )
                self._kill()
            return self._progress

    def wait(self, seconds: float) -> Progress:
        """The state as soon as the ledger is complete or nothing more comes, or after `seconds`. For the command line."""
        until = time.monotonic() + seconds
        while True:
            now = self.poll()
            ended = now.error is not None or (now.ledger is not None and now.ledger.complete) or self._done
            left = until - time.monotonic()
            if ended or left <= 0:
                return self.poll()
            with self._changed:
                self._changed.wait(min(left, 0.2))

    def row(self, index: int) -> SeenRow:
        """The row at `index` among the rows read so far. Raises FinetuiError (row-missing) where there is none."""
        return _ROW.validate_python(self._ask("row", index=index))

    def find(self, text: str, after_index: int = -1) -> int | None:
        """The index of the next row past `after_index` that holds `text` (upper and lower case alike), from the start again
        where none follows; None where no row does."""
        return self._ask("find", LONG_REQUEST_SECONDS, text=text, after=after_index)

    def jump(self, kind: Kind | str, nth: int = 0) -> int | None:
        """The index of the `nth` (from 0) row of a kind, or of the finding whose code is given; None past the last.

        Longest and shortest are in order of length, all others in order of reading.
        """
        return self._ask("jump", to=kind, nth=nth)

    def at_line(self, number: int) -> int | None:
        """The index of the row that stands at line `number`, or of the next one."""
        return self._ask("line", number=number)

    def write_clean(self, path: Path, drop: Sequence[str] = ()) -> CleanCopy:
        """Writes the kept rows, as they stand in their files, as JSONL to `path`, without those of the finding codes in
        `drop`. Needs a complete ledger. Raises FinetuiError (file-exists, file, not-complete)."""
        path = path.absolute()
        found = self._ask("write_clean", LONG_REQUEST_SECONDS, path=str(path), drop=list(drop))
        return CleanCopy(Path(found["path"]), found["written"], found["left_out"])

    def pause(self, on: bool = True) -> None:
        """Holds the reading (rows can still be asked for), or goes on."""
        self._ask("pause", on=on)

    def cancel(self) -> None:
        """Ends the reading; what was read stays and can be looked at."""
        self._ask("cancel")

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()  # lets it tidy up
        threading.Thread(target=self._bury, name=f"bury-{self._process.pid}", daemon=True).start()

    def _bury(self) -> None:
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()
        self._errors.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _send(self, message: dict[str, Any]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(OSError, ValueError):  # a dead process is noticed by who listens
            stdin.write(json.dumps(message).encode() + b"\n")
            stdin.flush()

    def _ask(self, call: str, seconds: float = REQUEST_SECONDS, **values: Any) -> Any:
        with self._lock:
            self._last_id += 1
            mine = self._last_id
            self._wanted.add(mine)
            self._send({"id": mine, "call": call, **values})
            until = time.monotonic() + seconds
            while mine not in self._answers:
                if self._closed or self._process.poll() is not None:
                    self._wanted.discard(mine)
                    raise self._progress.error or FinetuiError(
                        "The inspection has ended.",
                        "Its process is gone.",
                        "Start it again.",
                        code="inspect-ended",
                    )
                left = until - time.monotonic()
                if left <= 0:
                    self._wanted.discard(mine)
                    raise FinetuiError(
                        "The inspection takes too long to answer.",
                        f"Nothing came within {seconds:.0f} seconds.",
                        "Try again, or close it.",
                        code="inspect-slow",
                    )
                self._changed.wait(min(left, 0.5))
            answer = self._answers.pop(mine)
        if "error" in answer:
            raise _card(answer["error"])
        return answer["value"]

    def _listen(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        for line in stdout:
            try:
                self._heed(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:  # not what `core.worker.inspect` writes
                with self._lock:
                    self._fail(
                        FinetuiError(
                            "The inspection answers in a way that is not understood.",
                            one_line(f"{type(error).__name__}: {error}", 200),
                            "Start it again.",
                            code="inspect-failed",
                        )
                    )
                self._kill()
                break
        code = self._process.wait()
        stdout.close()
        with self._lock:
            if not self._closed and self._progress.error is None:
                self._fail(self._death(code))
            self._changed.notify_all()

    def _heed(self, message: dict[str, Any]) -> None:
        kind = message["kind"]
        ledger = None
        if kind == "progress" and message.get("ledger") is not None:
            ledger = _LEDGER.validate_python(message["ledger"])
        with self._lock:
            self._heard = time.monotonic()
            if kind == "progress":
                self._progress = Progress(
                    int(message["rows"]),
                    float(message["share"]),
                    ledger or self._progress.ledger,
                    self._progress.error,
                    bool(message["ready"]),
                    str(message.get("stage", "")),
                )
            elif kind == "error":
                self._fail(_card(message["error"]))
            elif kind == "answer":
                if message["id"] in self._wanted:
                    self._wanted.discard(message["id"])
                    self._answers[message["id"]] = message
            elif kind == "done":
                self._done = True
            self._changed.notify_all()

    def _fail(self, error: FinetuiError) -> None:
        self._progress = replace(self._progress, error=error)
        self._changed.notify_all()

    def _death(self, code: int) -> FinetuiError:
        lines: list[str] = []
        with contextlib.suppress(OSError, ValueError):
            size = self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, size - 4000))
            lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        why = one_line(redact(lines[-1]), 200) if lines else f"It ended with code {code}."
        if code in (-signal.SIGKILL, -signal.SIGABRT, -signal.SIGSEGV):
            why = "The system ended its process, most likely for want of memory."
        return FinetuiError(
            "The inspection has ended too soon.",
            why,
            "A very large row or a broken chat template may be the cause: choose another model, or look at the rows.",
            code="inspect-failed",
        )


def _card(values: dict[str, str]) -> FinetuiError:
    return FinetuiError(values["what"], values["why"], values["fix"], code=values["code"])
