"""`finetui script`: a recipe as a plain Unsloth script or notebook."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ...core.named_files import given_path, write_new
from . import output
from .recipes import SetOption, changed, read


def script(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file; - is standard input.")],
    notebook: Annotated[bool, typer.Option("--notebook", help="A notebook that opens in Colab.")] = False,
    file: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it; standard output otherwise."),
    ] = "-",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    settings: SetOption = None,
) -> None:
    """Write a recipe as a plain Unsloth script that does the same without finetui.

    The demo's rows are written beside it; a notebook holds them.
    """
    from ...core import script, script_look
    from ...core.runs import launch

    asked, folder = read(recipe)
    ready = launch.resolved(changed(asked, settings), folder)
    made = script.make(ready, script_look.look(ready.dataset), notebook)
    text = made.notebook() if notebook else made.text
    if file == "-":
        sys.stdout.write(text)
        if made.files and not notebook:
            names = ", ".join(name for name, _ in made.files)
            output.line(f"It reads {names} from its own folder: --output FILE writes them too.", sys.stderr)
        return
    path = given_path(file).absolute()
    written = [(path, text.encode())]
    if not notebook:
        written += [(path.with_name(name), content) for name, content in made.files]
    write_new(written, force)
    output.line(f"Wrote {', '.join(str(target) for target, _ in written)}.")
