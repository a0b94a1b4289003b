"""Talks to a loaded model in a child process, which may die of what it opens: that ends the talk with a card, and nothing else.

The child (`core.worker.talk`) ends with this process, whichever way that is.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from .asking import tied
from .dataset_messages import writable
from .errors import FinetuiError
from .secrets import redact
from .talk import Device, Messages, Reply, Sampling, Side, Target
from .text import one_line

_TARGET: TypeAdapter[Target] = TypeAdapter(Target)


@dataclass(frozen=True)
class Loading:
    """How far the loading is. `words` while it goes on; `error` where the child has ended, now or later."""

    words: str = "starting"
    ready: bool = False
    device: str = ""
    context: int = 0
    plain: bool = False
    step: int | None = None
    seconds: float = 0.0
    error: FinetuiError | None = None


class Writing:
    """One answer as it is written. `now` never blocks; `pieces` and `wait` do."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._pieces: list[str] = []
        self._reply: Reply | None = None
        self.prompt_tokens = 0
        self.error: FinetuiError | None = None
        self.began = time.monotonic()
        self.first: float | None = None

    @property
    def over(self) -> bool:
        return self._reply is not None or self.error is not None

    def now(self) -> Reply:
        """What there is of it. Its `reason` is empty while it is written."""
        with self._changed:
            if self._reply is not None:
                return self._reply
            first = self.first or 0.0
            reason = "failed" if self.error is not None else ""
            return Reply(
                "".join(self._pieces), len(self._pieces), time.monotonic() - self.began, first, reason
            )

    def pieces(self) -> Iterator[str]:
        """The text as it comes. Raises the answer's FinetuiError."""
        at = 0
        while True:
            with self._changed:
                while at == len(self._pieces) and not self.over:
                    self._changed.wait(0.5)
                new, at = self._pieces[at:], len(self._pieces)
                over = self.over and not new
            yield from new
            if over:
                if self.error is not None:
                    raise self.error
                return

    def wait(self) -> Reply:
        """The whole answer. Raises its FinetuiError."""
        for _ in self.pieces():
            pass
        assert self._reply is not None
        return self._reply


class Talker:
    """One loaded target. Answers are written one after the other; asking more queues them. Safe from any thread."""

    def __init__(self, target: Target, device: Device = "gpu") -> None:
        """Starts the child and returns at once. `device` cpu keeps it off the GPU."""
        self.target = target
        self._changed = threading.Condition()
        self._loading = Loading()
        self._writings: dict[int, Writing] = {}
        self._last = 0
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self.device: Device = device
        self._started = threading.Event()
        threading.Thread(target=self._live, name="talk", daemon=True).start()
        self._started.wait(30)

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._process.pid if self._process is not None else None

    def loading(self) -> Loading:
        """The newest state, at once."""
        with self._changed:
            return self._loading

    def wait(self, seconds: float) -> Loading:
        """The state as soon as something changed, or after `seconds`."""
        with self._changed:
            self._changed.wait(seconds)
            return self._loading

    def wait_ready(self) -> Loading:
        """Blocks until it can answer. Raises FinetuiError where it cannot."""
        with self._changed:
            while not self._loading.ready and self._loading.error is None:
                self._changed.wait(0.5)
            if self._loading.error is not None:
                raise self._loading.error
            return self._loading

    def ask(
        self, side: Side, messages: Messages, sampling: Sampling | None = None, stop: Sequence[str] = ()
    ) -> Writing:
        """Asks `side` for its answer to `messages`, which is written in the background. Lone surrogates, which no tokenizer
        takes, are U+FFFD to it, as in training."""
        with self._changed:
            writing = Writing(self._changed)
            if self._loading.error is not None:
                writing.error = self._loading.error
                return writing
            self._last += 1
            self._writings[self._last] = writing
            self._send(
                {
                    "id": self._last,
                    "side": side,
                    "messages": [(role, writable(text)) for role, text in messages],
                    "sampling": (sampling or Sampling()).model_dump(),
                    "stop": list(map(writable, stop)),
                }
            )
            return writing

    def stop(self, writing: Writing | None = None) -> None:
        """Ends `writing`, or all, where they are; what is written stays."""
        with self._changed:
            for number, one in self._writings.items():
                if writing is None or one is writing:
                    self._send({"cancel": number})

    def close(self) -> None:
        """Ends the child."""
        with self._changed:
            self._closed = True
        self._kill()

    # ---- the child ----

    def _live(self) -> None:
        """Starts the child and hears it to its end. The child is tied to the thread that started it: to this one."""
        from .runs.launch import worker_environment

        environment = worker_environment()
        environment.update(TRANSFORMERS_VERBOSITY="error")
        if self.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    tied([sys.executable, "-P", "-m", "finetui.core.worker.talk"]),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                self._fail(
                    FinetuiError(
                        "The model's process could not be started.",
                        f"{error.strerror or error}.",
                        "The machine may be out of processes or memory: end something, then try again.",
                        code="talk-ended",
                    )
                )
                self._started.set()
                return
            self._process = process
            with self._changed:
                self._send(_TARGET.dump_python(self.target, mode="json"))
            self._started.set()
            if self._closed:
                self._kill()
            assert process.stdout is not None
            for line in process.stdout:
                with contextlib.suppress(ValueError, KeyError, TypeError):  # a torn last line
                    self._heed(json.loads(line))
            code = process.wait()
            process.stdout.close()
            with contextlib.suppress(OSError, ValueError):
                if process.stdin is not None:
                    process.stdin.close()
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4000))
            lines = errors.read().decode("utf-8", "replace").strip().splitlines()
        self._fail(_death(code, lines[-1] if lines else ""))

    def _heed(self, message: dict[str, Any]) -> None:
        kind = message["kind"]
        with self._changed:
            writing = self._writings.get(message.get("id", -1))
            if kind == "stage":
                self._loading = Loading(str(message["words"]))
            elif kind == "ready":
                self._loading = Loading(
                    "", True, str(message["device"]), int(message["context"]), bool(message["plain"]),
                    message["step"], float(message["seconds"]),
                )  # fmt: skip
            elif kind == "error":
                told = message["error"]
                error = FinetuiError(told["what"], told["why"], told["fix"], code=told["code"])
                if writing is not None:
                    writing.error = error
                    del self._writings[message["id"]]
                else:
                    self._fail(error)
            elif writing is not None and kind == "piece":
                writing._pieces.append(str(message["text"]))
                if writing.first is None:
                    writing.first = time.monotonic() - writing.began
            elif writing is not None and kind == "done":
                writing.prompt_tokens = int(message["prompt_tokens"])
                writing._reply = Reply(
                    str(message["text"]), int(message["tokens"]), float(message["seconds"]),
                    float(message["first_seconds"]), str(message["reason"]), tuple(message["ids"]),
                )  # fmt: skip
                del self._writings[message["id"]]
            self._changed.notify_all()

    def _fail(self, error: FinetuiError) -> None:
        with self._changed:
            error = self._loading.error or error
            self._loading = Loading("", error=error)
            for writing in self._writings.values():
                writing.error = error
            self._writings.clear()
            self._changed.notify_all()

    def _send(self, message: Any) -> None:
        stdin = self._process.stdin if self._process is not None else None
        with contextlib.suppress(OSError, ValueError):  # a dead child is noticed by who listens
            if stdin is not None:
                stdin.write(json.dumps(message).encode() + b"\n")
                stdin.flush()

    def _kill(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


def _death(code: int, last: str) -> FinetuiError:
    if code == -signal.SIGKILL:
        why = "The system ended it, most likely for want of memory, or somebody did."
    elif code < 0:
        why = f"It crashed ({signal.Signals(code * -1).name}): the file may be malformed."
    else:
        why = one_line(redact(last), 300) or f"It ended with code {code}."
    return FinetuiError(
        "The model's process has ended.",
        why,
        "Open the talk again; where memory is short, close something or try a smaller form of the model.",
        code="talk-ended",
    )
