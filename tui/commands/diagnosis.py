"""`finetui doctor`: whether this machine can train, and what to do where it cannot."""

from __future__ import annotations

from typing import Annotated

import typer

from . import exits, output
from .recipes import JsonOption


def doctor(
    online: Annotated[
        bool, typer.Option("--online", help="Ask the hub too; without it nothing leaves this machine.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check this machine, and say what to do where it falls short.

    The exit code is 6 where something must be mended before training.
    """
    from ...core import doctor as checks

    raise typer.Exit(exits.REFUSED)
