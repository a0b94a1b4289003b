"""The pane Result: how a run ended, what it scored and exported, and the ways on from there."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from ....core.runs.events import Exported
from ....core.runs.remedies import mends
from ....core.runs.state import RunStatus
from ....core.runs.store import RunFolder
from ...wizard import STEP_NAMES
from . import result
from .background import step_to_fix
from .story import Story


def ending(
    run: RunFolder,
    story: Story,
    status: RunStatus,
    done: Sequence[Exported],
    ways: Sequence[result.Use],
    chosen: int,
    width: int,
) -> list[Content]:
    """What the run came to so far. `done` are its exports, `ways` the commands to use them."""
    lines = _end(story, status, width) if not status.live else []
    if story.score is not None:
        lines += result.score_table(story.score, width)
        lines += result.examples(story.score, width)
    if done:
        if story.score is not None:
            lines.append(Content(""))
        lines.append(Content.assemble(("Exports", "bold $accent"), ("   e makes more", "$text-muted")))
        lines += result.exports(run, done, ways, chosen, width, story.proofs)
    elif not status.live and status.trained:
        lines.append(Content.assemble(("e", "bold $accent"), (" exports the result.", "$text-muted")))
    return lines


def _end(story: Story, status: RunStatus, width: int) -> list[Content]:
    """Why it failed and how to go on, or how it went; and an empty line."""
    lines: list[Content] = []
    if status.card is not None:
        lines += result.card(status.card, width)
        ways = [("f", "retry with the fix" if mends(status.card.code) else "what to do, and retry")]
        ways += [("r", "resume from the checkpoint")] if status.resumable else []
        step = "export" if status.past_training else step_to_fix(status.card.code)
        ways.append(("b", f"change and retry: {STEP_NAMES[step]}"))
        for key, words in ways:
            lines.append(Content.assemble("  ", (key, "bold $accent"), (f" {words}", "$text-muted")))
    else:
        lines += result.summary(story, status, width)
        if status.state == "stopped" and status.resumable:
            words = " resumes from the checkpoint."
            lines.append(Content.assemble(("r", "bold $accent"), (words, "$text-muted")))
    return [*lines, Content("")]
