"""One finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "bad"]


@dataclass(frozen=True)
class Check:
    """One finding. `ok` helps, `warn` limits, `bad` keeps a run from working; `fix` says what to do."""

    name: str
    status: Status
    detail: str
    fix: str = ""
