"""A question to `python -m finetui.core.worker.peek`: what would cost the wizard's process time, memory or a heavy import."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from typing import Any

from . import asking
from .asking import Answer
from .dataset_formats import UnknownFormat
from .errors import FinetuiError
from .text import one_line

PEEK_SECONDS = 120.0
"""How long a look at a hub dataset may take, the import of `datasets` and its first download included."""


def ask(
    request: bytes,
    source: str,
    cancelled: Callable[[], bool] | None = None,
    timeout_seconds: float = PEEK_SECONDS,
) -> dict[str, Any]:
    """The answer to one JSON request about the dataset `source`. Blocking: call it from a thread.

    The process is ended when `cancelled` says so or the time is up. Raises the FinetuiError that the process answers with,
    and FinetuiError with codes dataset-slow, cancelled, dataset-broken (no answer).
    """
    from .runs.launch import worker_environment

    def check() -> None:
        if cancelled is not None and cancelled():
            raise FinetuiError("The look at the dataset was cancelled.", code="cancelled")

    argv = [sys.executable, "-P", "-m", "finetui.core.worker.peek"]
    try:
        answer = asking.ask(argv, request, worker_environment(), check, timeout_seconds)
    except TimeoutError:
        raise FinetuiError(
            f"The look at {one_line(source, 100)} took too long.",
            f"Nothing came within {timeout_seconds:.0f} seconds.",
            "Try again, or download the dataset and name the file.",
            code="dataset-slow",
        ) from None
    return _answered(source, answer)


def _answered(source: str, answer: Answer) -> dict[str, Any]:
    try:
        reply = json.loads(answer.output)
        if "error" in reply:
            card = reply["error"]
            if "columns" in card:
                columns, examples = tuple(card["columns"]), tuple(card["examples"])
                raise UnknownFormat(card["what"], card["why"], card["fix"], columns, examples)
            raise FinetuiError(card["what"], card["why"], card["fix"], code=card["code"])
        return dict(reply)
    except (ValueError, KeyError, TypeError) as error:
        why = one_line(answer.last_words, 200) or "It gave no answer."
        if answer.code == -signal.SIGKILL:
            why = "The system ended the process that read it, most likely for want of memory."
        raise no_answer(source, why) from error


def no_answer(source: str, why: str) -> FinetuiError:
    """The card for a process that gave no answer, or one that makes no sense (dataset-broken)."""
    return FinetuiError(
        f"{one_line(source, 100)} could not be read.", why, "See `finetui doctor`.", code="dataset-broken"
    )
