"""A model that answers, in a process of its own: `python -m finetui.core.worker.talk`.

Speaks JSON lines. The first line on standard input is the `Target`; each further one is a request `{"id", "side", "messages",
"sampling", "stop"}` or `{"cancel": id}`; the end of input ends the process. On standard output: `stage`, `ready`, and for
each request `piece`s of text and one `done`, or an `error`. What is opened here may be malformed: only this process ends of it.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import TypeAdapter

from ..errors import FinetuiError
from ..talk import Messages, Reply, Sampling, Side, Target
from . import environment, failures
from .outlet import Outlet

TARGET: TypeAdapter[Target] = TypeAdapter(Target)


@dataclass(frozen=True)
class Request:
    """One answer that is wanted. `stop`: texts at which it ends; they are not part of it."""

    id: int
    side: Side
    messages: Messages
    sampling: Sampling
    stop: tuple[str, ...] = ()


REQUEST: TypeAdapter[Request] = TypeAdapter(Request)


@dataclass(frozen=True)
class Told:
    """What `ready` says of the model."""

    device: str
    context: int
    plain: bool
    """It has no chat template: it goes on with the last text that it is given."""
    step: int | None = None
    """The checkpoint's, where one was opened."""


Tell = Callable[[str], None]
Stopped = Callable[[], bool]


class Engine(Protocol):
    """Something loaded that answers."""

    told: Told

    def answer(self, request: Request, tell: Tell, stopped: Stopped) -> tuple[Reply, int]:
        """The whole answer and the number of the prompt's tokens; pieces go to `tell` as they come. Raises FinetuiError."""
        ...


class Writer:
    """Passes on an answer's text as it grows, holding back what may become one of the `stops`."""

    def __init__(self, tell: Tell, stops: tuple[str, ...]) -> None:
        self.text = ""
        self.stopped = False
        self.began = time.monotonic()
        self.first = 0.0
        self._told = 0
        self._tell, self._stops = tell, tuple(stop for stop in stops if stop)
        self._held = max((len(stop) - 1 for stop in self._stops), default=0)

    def grow(self, text: str, last: bool = False) -> None:
        """`text` is the answer so far."""
        self.first = self.first or time.monotonic() - self.began
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            text, last, self.stopped = text[: min(found)], True, True
        self.text = text
        until = len(text) if last else max(self._told, len(text) - self._held)
        if until > self._told:
            self._tell(text[self._told : until])
            self._told = until

    def reply(self, tokens: int, reason: str, ids: tuple[int, ...] = ()) -> Reply:
        return Reply(self.text, tokens, time.monotonic() - self.began, self.first, reason, ids)


def too_long(tokens: int, context: int) -> FinetuiError:
    """The card for a talk that the model cannot take in any more."""
    return FinetuiError(
        "The talk has become too long for this model.",
        f"It is {tokens:,} tokens, and the model takes {context:,}, its answer included.",
        "Start a new talk, or shorten the question.",
        code="talk-too-long",
    )


def serve(target: Target, requests: queue.Queue[Request], cancelled: set[int], outlet: Outlet) -> None:
    """Loads `target`, then answers requests one after the other, for ever."""
    began = time.monotonic()

    def stage(words: str) -> None:
        outlet.say("stage", words=words)

    try:
        if target.kind == "gguf":
            from .talk_gguf import Gguf

            engine: Engine = Gguf(target, stage)
        else:
            from .talk_transformers import Transformers

            engine = Transformers(target, stage)
    except BaseException as error:  # the process's edge
        outlet.error(_card(error))
        return
    told = engine.told
    outlet.say(
        "ready", device=told.device, context=told.context, plain=told.plain, step=told.step,
        seconds=time.monotonic() - began,
    )  # fmt: skip
    while True:
        request = requests.get()
        try:
            reply, prompt_tokens = engine.answer(
                request,
                lambda text, request=request: outlet.say("piece", id=request.id, text=text),
                lambda request=request: request.id in cancelled,
            )
        except BaseException as error:  # one answer that failed ends no talk
            outlet.error(_card(error), id=request.id)
            continue
        outlet.say(
            "done", id=request.id, text=reply.text, tokens=reply.tokens, seconds=reply.seconds,
            first_seconds=reply.first_seconds, reason=reply.reason, prompt_tokens=prompt_tokens, ids=reply.ids,
        )  # fmt: skip


def _card(error: BaseException) -> FinetuiError:
    found = failures.card(error, Path("worker.log"))
    if found.code != "run-failed":
        return found
    return FinetuiError(
        "The model could not answer.",
        failures.last_line(error),
        "Try again; if it stays so, try another form of the model.",
        code="talk-failed",
    )


def main() -> None:
    outlet = Outlet(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # what libraries print is no line of ours
    target = TARGET.validate_json(sys.stdin.buffer.readline())
    requests: queue.Queue[Request] = queue.Queue()
    cancelled: set[int] = set()

    def listen() -> None:
        for line in sys.stdin.buffer:
            message: Any = json.loads(line)
            if "cancel" in message:
                cancelled.add(int(message["cancel"]))
            else:
                requests.put(REQUEST.validate_python(message))
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    environment.prepare()
    serve(target, requests, cancelled, outlet)
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main()
