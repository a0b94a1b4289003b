"""The one family of errors that people see: what happened, why, and how to fix it."""

from __future__ import annotations


class FinetuiError(Exception):
    """A failure whose cause is known, shown as a card with three short texts.

    Raise it where the cause is known. `what` names the failure in one line, `why` its cause, `fix` the next
    thing to do. `code` is a stable, machine-readable name (kebab-case) that events and `--json` carry.
    """

    def __init__(self, what: str, why: str = "", fix: str = "", *, code: str = "error") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix
        self.code = code

    def __str__(self) -> str:
        return "  ".join(part for part in (self.what, self.why, self.fix) if part)


class RecipeError(FinetuiError):
    """A recipe that cannot be used. `problems` holds one line for each thing that is wrong."""

    def __init__(self, what: str, problems: tuple[str, ...], fix: str = "") -> None:
        super().__init__(what, "\n".join(problems), fix or "Correct the lines above.", code="recipe")
        self.problems = problems
