"""`finetui report`: what to attach to a bug report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...core.errors import FinetuiError
from ...core.named_files import given_path
from . import output
from .recipes import JsonOption
from .training import RunArgument


def report(
    run: RunArgument,
    file: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE.zip", help="Where to write it; here otherwise."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Bundle what a bug report needs: events, settings, versions, the log's end, this machine.

    Tokens, rows, prompts, answers, paths and names are left out, of models too unless finetui recommends them.
    """
    from ...core.runs import report as bundle
    from ...core.runs import store

    folder = store.find(run)
    target = given_path(file) if file is not None else Path(bundle.name(folder))
    if target.exists() and not force:
        raise FinetuiError(
            f"{target} is there already.",
            "It would be replaced.",
            "Name another file with --output, or add --force.",
            code="file-exists",
        )
    names = bundle.write(folder, target.absolute())
    if as_json:
        output.data({"run": folder.id, "path": str(target.absolute()), "files": list(names)})
        return
    output.line(f"Wrote {target}: {', '.join(names)}.")
    output.line(
        "Tokens, rows, prompts, answers, paths and names are left out. Look through it before you send it."
    )
