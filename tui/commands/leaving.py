"""`finetui upload`, `ollama` and `copy`: where a finished export goes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import exits, output
from .care import YesOption, confirmed
from .exporting import formats_of
from .recipes import JsonOption
from .training import RunArgument

if TYPE_CHECKING:
    from ...core.transfer import TransferState
    from ...core.upload import Upload

_POLL_SECONDS = 0.25
_LINE_SECONDS = 3.0

FormatOption = Annotated[
    list[str] | None,
    typer.Option("--format", "-f", metavar="FORMAT", help="An export that is there; may be given again."),
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Also where something of this name is already.")
]


def upload(
    run: RunArgument,
    formats: FormatOption = None,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="OWNER/NAME", help="The repository; your account and the run's name otherwise."
        ),
    ] = "",
    public: Annotated[bool, typer.Option("--public", help="Let anybody see it. Private otherwise.")] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Also into a repository that holds other files; those of the same names go."
        ),
    ] = False,
    yes: YesOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Upload exports to the hub: the adapter, or those of --format. Private unless --public is given.

    Says first what would be uploaded, and asks. Ctrl+C ends it; the same command goes on where it was. The token comes
    from HF_TOKEN or the hub's own login.
    """
    from ...core import upload as uploading
    from ...core.runs import store

    folder = store.find(run)
    plan = uploading.plan(folder, formats_of(formats) if formats else (), to, public=public, replace=replace)
    _say(plan, as_json, dry_run)
    if dry_run:
        return
    if not confirmed("Upload this?", yes):
        return
    _follow(uploading.Upload.start(plan), plan.url, as_json)


def ollama(
    run: RunArgument,
    format: Annotated[
        str,
        typer.Option(
            "--format", "-f", metavar="FORMAT", help="The GGUF; the one that most people want otherwise."
        ),
    ] = "",
    name: Annotated[
        str, typer.Option("--name", help="The model's name in Ollama; the run's otherwise.")
    ] = "",
    base: Annotated[
        str,
        typer.Option(
            "--base",
            metavar="GGUF",
            help="Hand over the adapter (adapter_gguf) instead, over this GGUF of the base model or over what Ollama calls it.",
        ),
    ] = "",
    replace: ReplaceOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Hand a GGUF to Ollama, with this model's own template, stops and system prompt.

    Where Ollama is not on the PATH, the commands are written for where it is.
    """
    from ...core import ollama as handing
    from ...core.runs import store

    plan = handing.plan(store.find(run), formats_of([format])[0] if format else "", name, base)
    _say(plan, as_json, dry_run)
    if plan.program is None or dry_run:
        if not as_json:
            output.line("Where Ollama is:" if plan.program is None else "The commands:")
            for command in plan.commands:
                output.line(f"  {command}")
        return
    question = f"Ollama has a model of this name. Replace {plan.name}?"
    if plan.replaces and not confirmed(question, replace, flag="--replace"):
        return
    handing.create(plan, (lambda _line: None) if as_json else (lambda line: output.line(f"  {line}")))
    if as_json:
        output.data({"kind": "ended", "state": "done", "name": plan.name})
    else:
        output.line(f"Made. Talk to it: {plan.commands[1]}")


def copy(
    run: RunArgument,
    target: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder that is not there yet, or an earlier copy.")
    ],
    formats: FormatOption = None,
    replace: ReplaceOption = False,
    dry_run: DryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Copy exports to a folder that can be carried elsewhere: all that are there, or those of --format.

    With it go a card, the commands to use them, and SHA256SUMS; the copy is read back and compared before it gets its name.
    """
    from ...core import copying
    from ...core.runs import store

    plan = copying.plan(store.find(run), target, formats_of(formats) if formats else ())
    _say(plan, as_json, dry_run)
    if dry_run:
        return
    question = f"An earlier copy stands there. Replace {plan.target}?"
    if plan.replaces and not confirmed(question, replace, flag="--replace"):
        return
    lines = _Lines(as_json)
    try:
        copying.copy(plan, lambda done, total: lines.progress(done, total, 0.0, None))
    except KeyboardInterrupt:
        _stopped(as_json, "Stopped. Nothing half-made was left.")
    if as_json:
        output.data({"kind": "ended", "state": "done", "path": str(plan.target)})
    else:
        output.line(f"Copied and compared: {plan.target}")
        output.line(f"Check it elsewhere with: sha256sum -c {copying.SUMS}")


def _say(plan: Any, as_json: bool, dry_run: bool) -> None:
    if as_json:
        output.data({"kind": "plan", "dry_run": dry_run, **plan.as_json()})
        return
    for line in plan.lines():
        output.line(line)


class _Lines:
    """Progress as lines, one every few seconds."""

    def __init__(self, as_json: bool) -> None:
        self._json, self._told = as_json, time.monotonic()

    def progress(self, done: int, total: int, per_second: float, eta_seconds: float | None) -> None:
        from ...core.text import bytes_words, duration_words

        now = time.monotonic()
        if now - self._told < _LINE_SECONDS:
            return
        self._told = now
        if self._json:
            output.data(
                {"kind": "progress", "done_bytes": done, "total_bytes": total, "bytes_per_second": per_second}
            )
            return
        speed = f", {bytes_words(per_second)}/s" if per_second else ""
        left = f", {duration_words(eta_seconds)} left" if eta_seconds is not None else ""
        output.line(
            f"  {100 * done // max(1, total):>3} %  {bytes_words(done)} of {bytes_words(total)}{speed}{left}"
        )


def _follow(one: Upload, url: str, as_json: bool) -> None:
    """Follows an upload to its end. Raises its card, and typer.Exit where the person ended it."""
    lines = _Lines(as_json)
    try:
        while (state := one.poll()).live:
            if state.total_bytes:
                lines.progress(state.done_bytes, state.total_bytes, state.bytes_per_second, state.eta_seconds)
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        one.cancel()
        state = _wait(one)
    if state.error is not None:
        raise state.error
    if state.state == "cancelled":
        _stopped(as_json, "Stopped. The same command goes on: what has arrived is not sent twice.")
    if as_json:
        output.data({"kind": "ended", "state": "done", "url": url, "bytes": state.total_bytes})
    else:
        output.line(f"Uploaded and compared: {url}")


def _wait(one: Upload) -> TransferState:
    """How an upload that was told to end has ended."""
    until = time.monotonic() + 10
    while (state := one.poll()).live and time.monotonic() < until:
        time.sleep(_POLL_SECONDS)
    return state


def _stopped(as_json: bool, words: str) -> None:
    if as_json:
        output.data({"kind": "ended", "state": "cancelled"})
    else:
        output.line(words)
    raise typer.Exit(exits.STOPPED)
