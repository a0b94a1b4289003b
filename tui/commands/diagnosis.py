"""`finetui doctor`: whether this machine can train, and what to do where it cannot."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import Annotated

import typer

from . import exits, output
from .recipes import JsonOption

_MARKS = {"ok": "ok", "warn": "limits", "bad": "PROBLEM"}


def doctor(
    online: Annotated[
        bool, typer.Option("--online", help="Ask the hub too; without it nothing leaves this machine.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check this machine, and say what to do where it falls short.

    The exit code is 6 where something must be mended before training.
    """
    from ...core import doctor as examination

    found = []
    for check in examination.checks(online):
        found.append(check)
        if as_json:
            continue
        head = f"{_MARKS[check.status]:<9}{check.name:<18}"
        width = max(20, output.width() - len(head))
        rows = [part for text in (check.detail, check.fix) for part in textwrap.wrap(text, width)]
        output.line(head + (rows[0] if rows else ""))
        for row in rows[1:]:
            output.line(" " * len(head) + row)
    bad = sum(check.status == "bad" for check in found)
    if as_json:
        output.data({"ok": not bad, "checks": [asdict(check) for check in found]})
    elif bad:
        output.line(f"{bad} to mend before a run can work.")
    else:
        output.line("Nothing here keeps a run from working.")
    raise typer.Exit(exits.REFUSED if bad else exits.OK)
