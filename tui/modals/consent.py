"""Asks whether code of a model's repository may run here. The answer that is at hand is no."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual.app import App

from ...core.model_facts import RemoteCodeFound
from ..widgets.text import literal
from .confirm import ConfirmModal

SHOWN_FILES = 8


def question(error: RemoteCodeFound) -> str:
    """Names the repository, the revision and the files."""
    files = [f"  {literal(name, 100)}" for name in error.files[:SHOWN_FILES]]
    if len(error.files) > SHOWN_FILES:
        files.append(f"  and {len(error.files) - SHOWN_FILES} more")
    return "\n".join(
        (
            "This model brings Python code, which would run on this machine with your rights: it could read your "
            "files and send them away. Read it first.",
            "",
            f"Repository  {literal(error.repo, 100)}",
            f"Revision    {literal(error.revision, 100)}",
            "Files",
            *files,
            "",
            "A yes holds for exactly this revision.",
        )
    )


def ask_consent(app: App[Any], error: RemoteCodeFound, agreed: Callable[[], object]) -> None:
    """Calls `agreed` after a yes."""

    def answered(answer: str | None) -> None:
        if answer == "yes":
            agreed()

    answers = (("no", "No, run nothing"), ("yes", "Yes, run this code"))
    app.push_screen(ConfirmModal("Run code from this repository?", question(error), answers), answered)
