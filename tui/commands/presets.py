"""`finetui presets`: lists presets, shows one, and compares it with another, a run or a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .recipes import JsonOption, read

if TYPE_CHECKING:
    from ...core.presets import Preset


def presets(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="The preset to show; without it, all are listed.")
    ] = "",
    diff: Annotated[
        str,
        typer.Option(
            "--diff",
            metavar="OTHER",
            help="Compare with another preset, a run (last is the newest) or a recipe.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """List presets, show what one sets, or compare it with another."""
    from ...core import presets, presets_own

    if not name:
        if diff:
            from .recipes import usage

            raise usage(
                "--diff needs a preset to compare.",
                "Only one side was named.",
                "finetui presets balanced --diff last",
            )
        _list(as_json)
        return
    chosen = presets_own.find(name)
    if not diff:
        if as_json:
            output.data(
                {"name": chosen.name, "why": chosen.why, "own": chosen.own, "values": _plain(chosen.values)}
            )
            return
        output.line(f"{chosen.title}: {chosen.why}")
        for path, value in chosen.values.items():
            output.line(f"  {path}={_words(value)}")
        return
    other = _other(diff)
    found = presets.diff(chosen.values, other.values, every=False)
    if as_json:
        output.data(
            {
                "preset": chosen.name,
                "other": other.name,
                "differences": [
                    {"path": d.spec.path, "preset": _plain_value(d.theirs), "other": _plain_value(d.yours)}
                    for d in found
                ],
            }
        )
        return
    if not found:
        output.line(f"{chosen.title} and {other.title} set the same, as far as both say it.")
        return
    wide = max(len(d.spec.path) for d in found) + 2
    each = max(len(chosen.title), *(len(_words(d.theirs)) for d in found)) + 2
    output.line(f"{'':{wide}}{chosen.title:{each}}{other.title}")
    for d in found:
        output.line(f"{d.spec.path:{wide}}{_words(d.theirs):{each}}{_words(d.yours)}")


def _list(as_json: bool) -> None:
    import sys
    import textwrap

    from ...core import presets, presets_own

    mine, broken = presets_own.own()
    every = (*presets.BUILT_IN, *mine)
    if as_json:
        output.data([{"name": p.name, "why": p.why, "own": p.own, "values": _plain(p.values)} for p in every])
    else:
        for preset in every:
            output.line(preset.name + ("  (yours)" if preset.own else ""))
            for row in textwrap.wrap(preset.why, output.width() - 4):
                output.line(f"    {row}")
    for words in broken:
        output.line(words, sys.stderr)


def _other(text: str) -> Preset:
    """What `text` names: a preset, else a run, else a recipe file."""
    import os

    from ...core import presets, presets_own, recipe_file
    from ...core.errors import FinetuiError
    from ...core.runs import store

    try:
        return presets_own.find(text)
    except FinetuiError as error:
        if error.code != "preset-missing":
            raise
        missing = error
    if os.path.isfile(text):
        return presets.of_recipe(text, "", read(text)[0])
    try:
        run = store.find(text)
    except FinetuiError:
        raise missing from None
    return presets.of_recipe(run.id, "", recipe_file.load(run.recipe))


def _words(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ",".join(str(v) for v in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def _plain_value(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {path: _plain_value(value) for path, value in values.items()}
