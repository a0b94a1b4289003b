"""`finetui eval`: base and tuned asked the same prompts, and scored."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...core.errors import FinetuiError
from ...core.named_files import given_path
from . import exits, output
from .opening import DeviceOption, TargetArgument, opened, sampling_of, sides_of
from .recipes import JsonOption

if TYPE_CHECKING:
    from ...core.talk import Messages, Sampling, Side
    from ...core.talk_score import Marks, Prompts
    from ...core.talking import Talker


def evaluate(
    target: TargetArgument,
    prompts: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPTS",
            help="A dataset file in any format; a row's last answer is what is expected. The run's own held-out rows otherwise.",
            show_default=False,
        ),
    ] = None,
    side: Annotated[str, typer.Option("--side", metavar="both|base|tuned", help="Who is asked.")] = "both",
    system: Annotated[
        str | None,
        typer.Option(
            "--system", metavar="TEXT", help="For rows without one; that of the training otherwise."
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens")] = 256,
    device: DeviceOption = "auto",
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="FILE", help="Go on with the rows of an eval that was cut off."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask base and tuned the same prompts, greedily, and score both.

    Exact (but for white space), contains what is expected, valid JSON, JSON with the same keys, and length. Every row is
    kept with the run, under talks/, as soon as it is scored. Ctrl+C ends it with the score so far; --resume goes on, whatever
    ended it, over the same prompts and weights. Exit code 0 when all were answered, 4 where a file or run is missing, 6 where the model cannot be loaded, 1 where it ended on the way.
    """
    from ...core import talk, talk_files, talk_score

    if prompts is None:
        found = talk_score.own(talk.find(target))
    else:
        file = given_path(prompts)
        if not file.exists():
            raise FinetuiError(f"{file} is not there.", "", "Check the path.", code="prompts-missing")
        found = talk_score.read(file)
    for left_out in found.left_out:
        output.line(f"Not asked: {left_out}", sys.stderr)
    code = exits.OK
    with contextlib.closing(opened(target, device)) as talker:
        sides = sides_of(talker.target, side)
        sampling = sampling_of({"max_new_tokens": max_new_tokens})
        default = talker.target.system_prompt if system is None else system
        scored: list[dict[Side, Marks]] = []
        tell = _counter(len(found.asked))
        rows = talk_files.Rows(talker.target, "eval", given_path(resume) if resume else None)
        with contextlib.closing(rows):
            try:
                for number, prompt in enumerate(found.asked):
                    messages = prompt.messages
                    if default and not prompt.system:
                        messages = (("system", default), *messages)
                    wanted = {**talk_files.row(messages), "expected": prompt.expected}
                    if number < len(rows.earlier):
                        row = _same(rows.earlier[number], wanted, sides, number + 1)
                    else:
                        row = wanted | {one: _answer(talker, one, messages, sampling) for one in sides}
                        for one in sides:
                            row[one] |= dataclasses.asdict(_marks(row, one))
                        with contextlib.suppress(FinetuiError):  # it waits for room, and the score goes on
                            rows.add(row)
                    scored.append({one: _marks(row, one) for one in sides})
                    tell(len(scored))
            except KeyboardInterrupt:
                code = exits.INTERRUPTED
            except FinetuiError as error:
                output.card(error, as_json)
                code = exits.FAILED if error.code == "talk-ended" else exits.of_error(error.code)
            try:
                rows.flush()
            except FinetuiError as error:
                output.card(error, as_json)
                code = exits.of_error(error.code)
    _show({one: [marks[one] for marks in scored] for one in sides}, found, str(rows.file), as_json)
    if code != exits.OK:
        output.line(f"To go on: the same command with --resume {rows.file}", sys.stderr)
    raise typer.Exit(code)


def _answer(talker: Talker, side: Side, messages: Messages, sampling: Sampling) -> dict[str, Any]:
    """What `side` answers, as it is kept. Raises FinetuiError."""
    reply = talker.ask(side, messages, sampling).wait()
    return {"answer": reply.text, "tokens": reply.tokens, "reason": reply.reason}


def _marks(row: dict[str, Any], side: Side) -> Marks:
    from ...core import talk_score

    return talk_score.mark(row[side]["answer"], row["expected"])


def _same(row: Any, wanted: dict[str, Any], sides: tuple[Side, ...], number: int) -> dict[str, Any]:
    """An earlier `row`, where it answers what is `wanted`. Raises FinetuiError (usage)."""
    answered = isinstance(row, dict) and all(
        isinstance(row.get(one), dict) and isinstance(row[one].get("answer"), str) for one in sides
    )
    if answered and all(row.get(key) == value for key, value in wanted.items()):
        return row
    raise FinetuiError(
        f"Row {number} of the score is of another prompt.",
        "It was begun over other prompts, another system prompt or fewer sides.",
        "Name what it was begun with, or leave out --resume.",
        code="usage",
    )


def _show(marks: dict[Side, list[Marks]], found: Prompts, kept: str, as_json: bool) -> None:
    """The score of what was answered, which is less than was `found` where it ended on the way."""
    from ...core import talk_score

    sides, wanted, count = tuple(marks), len(found.asked), max(map(len, marks.values()))
    sums = {one: talk_score.summary(marks[one]) for one in sides}
    if as_json:
        output.data(
            {
                "prompts": count,
                "asked": wanted,
                "left_out": found.left_out,
                "rows": kept,
                **{k: dataclasses.asdict(v) for k, v in sums.items()},
            }
        )
        return
    head = f"{count:,} prompts" if count == wanted else f"{count:,} of {wanted:,} prompts"
    output.line(head.ljust(24) + "".join(one.rjust(16) for one in sides))
    names = {
        "exact": "exact",
        "contains": "contains",
        "json_valid": "valid JSON",
        "json_keys": "JSON, same keys",
    }
    for name, words in names.items():
        line = words.ljust(24)
        for one in sides:
            judged = [v for m in marks[one] if (v := getattr(m, name)) is not None]
            line += (
                f"{sum(judged):,}/{len(judged):,} ({sum(judged) / len(judged):.0%})" if judged else "-"
            ).rjust(16)
        output.line(line)
    output.line(
        "characters, mean".ljust(24) + "".join(f"{sums[one].mean_characters:,.0f}".rjust(16) for one in sides)
    )
    output.line(f"Rows: {kept}")


def _counter(total: int) -> Callable[[int], None]:
    watched = sys.stderr.isatty()

    def tell(done: int) -> None:
        if watched:
            sys.stderr.write(f"\r{done:,} of {total:,} answered" + ("\n" if done == total else ""))
            sys.stderr.flush()

    return tell
