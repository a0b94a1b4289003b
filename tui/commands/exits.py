"""The exit codes of the command line, in one place."""

from __future__ import annotations

OK = 0
FAILED = 1
USAGE = 2
RECIPE = 3
NOT_FOUND = 4
CRASHED = 5
REFUSED = 6
STOPPED = 7
WARNINGS = 8
UNUSABLE = 9
INTERNAL = 70
INTERRUPTED = 130

MEANINGS: dict[int, str] = {
    OK: "done",
    FAILED: "the run failed",
    USAGE: "wrong usage",
    RECIPE: "the recipe is not valid",
    NOT_FOUND: "a run, file, model or dataset was not found",
    CRASHED: "the worker crashed",
    REFUSED: "not possible now (busy, not running, no space, doctor found a problem)",
    STOPPED: "the run was stopped before its end",
    WARNINGS: "inspect found something to look at",
    UNUSABLE: "the dataset cannot be trained on as it is",
    INTERNAL: "a fault in finetui itself",
    INTERRUPTED: "interrupted",
}

EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in MEANINGS.items()) + "."

_BY_STATE = {"completed": OK, "stopped": STOPPED, "failed": FAILED, "crashed": CRASHED}
_NOT_FOUND = ("hub-not-found", "run-not-found")


def of_error(code: str) -> int:
    """The exit code for a FinetuiError whose `code` is given."""
    if code in ("recipe", "draft"):
        return RECIPE
    if code == "usage":
        return USAGE
    if code in _NOT_FOUND or code.endswith("-missing"):
        return NOT_FOUND
    return REFUSED


def of_state(state: str) -> int:
    """The exit code for a run that is no longer at work."""
    return _BY_STATE.get(state, OK)
