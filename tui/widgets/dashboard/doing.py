"""What a run is doing, in words: for the header, and for the line of progress."""

from __future__ import annotations

from ....core.runs.state import RunStatus
from ....core.text import duration_words, one_line
from ...theme import glyphs
from ..header import Mood
from ..text import literal
from .story import STAGES, progress_words

Progress = tuple[float | None, str, str | None]
"""The share that is done (None is not known), words, and words in place of the share: what `ProgressLine.show` takes."""

MOODS: dict[str, Mood] = {
    "starting": "busy", "running": "busy", "completed": "good", "stopped": "paused", "failed": "bad", "crashed": "bad",
}  # fmt: skip
STAGE_WORDS = {
    "train": "training",
    "evaluate": "evaluating",
    "sample": "sampling",
    "save": "saving",
    "score": "scoring",
    "export": "exporting",
}


def state_word(status: RunStatus) -> str:
    """One word for the header, such as `training`."""
    if not status.live or status.state == "queued":
        return status.standing
    if status.paused:
        return "paused"
    if status.stage == "sample" and not status.step:
        return "starting"
    return STAGE_WORDS.get(
        status.stage, "starting" if status.job not in ("export", "verify") else "exporting"
    )


def figures(status: RunStatus) -> str:
    """Where it runs, how far it is and how long that takes, for the header."""
    parts: list[str] = []
    if status.elsewhere and status.host:
        parts.append(f"on {literal(status.host, 20)}")
    if status.total_steps:
        parts.append(
            f"epoch {status.epoch:.2f}"
        )  # goes before the step where the header is too short for both
        parts.append(f"step {status.step:,}/{status.total_steps:,}")
    if status.live and status.eta_seconds is not None and status.stage in ("train", "evaluate", "sample"):
        parts.append(f"{duration_words(max(0.0, status.eta_seconds))} left")
    else:
        parts.append(duration_words(status.seconds))
    return f" {glyphs().middot} ".join(parts)


def progress(status: RunStatus | None, *, steps: bool) -> Progress:
    """How far the run is. `steps`: with the count of the steps, for where the header has no room for it."""
    if status is None:
        return None, "Opening the run", None
    if not status.live:
        share = status.step / status.total_steps if status.total_steps else None
        words = status.aside or status.state
        return 1.0 if status.state == "completed" else share, words.capitalize(), None
    if status.stage == "train" and status.total_steps:
        at = f" {status.step:,}/{status.total_steps:,}" if steps else ""
        return status.step / status.total_steps, f"Training{at}", None
    return at_stage(status, f" {amount(status)}")


def at_stage(status: RunStatus, told: str = "") -> Progress:
    """The stage that lasts, followed by `told`; with its duration while nobody can say how far it is."""
    share = status.stage_done / status.stage_total if status.stage_total > 0 else None
    words = STAGES.get(status.stage, one_line(status.stage, 40))
    return share, f"{words}{told}".rstrip(), duration_words(status.seconds) if share is None else None


def amount(status: RunStatus) -> str:
    """How much of its stage is done, such as `3,200/20,000 rows`; empty where nothing is known."""
    return progress_words(status.stage_done, status.stage_total, status.stage_unit)
