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
    as_json: JsonOption = False,
) -> None:
    """Ask base and tuned the same prompts, greedily, and score both.

    Exact (but for white space), contains what is expected, valid JSON, JSON with the same keys, and length. Every row is
    kept with the run, under talks/, as soon as it is scored. Ctrl+C ends it with the score so far. Exit code 0 when all were
    answered, 4 where a file or run is missing, 6 where the model cannot be loaded, 1 where it ended on the way.
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
        with contextlib.closing(talk_files.begin(talker.target, "eval")) as kept:
            try:
                for prompt in found.asked:
                    messages = prompt.messages
                    if default and not prompt.system:
                        messages = (("system", default), *messages)
                    row, marks = _scored(talker, sides, messages, prompt.expected, sampling)
                    talk_files.add(kept, row)
                    scored.append(marks)
                    tell(len(scored))
            except KeyboardInterrupt:
                code = exits.INTERRUPTED
            except FinetuiError as error:
                output.card(error, as_json)
                code = exits.FAILED if error.code == "talk-ended" else exits.of_error(error.code)
    _show({one: [marks[one] for marks in scored] for one in sides}, found, kept.name, as_json)
    raise typer.Exit(code)


def _scored(
    talker: Talker, sides: tuple[Side, ...], messages: Messages, expected: str, sampling: Sampling
) -> tuple[dict[str, Any], dict[Side, Marks]]:
    """One prompt answered by each side: the row that is kept, and what is made of the answers. Raises FinetuiError."""
    from ...core import talk_files, talk_score

    row: dict[str, Any] = {**talk_files.row(messages), "expected": expected}
    marks: dict[Side, Marks] = {}
    for one in sides:
        reply = talker.ask(one, messages, sampling).wait()
        marks[one] = talk_score.mark(reply.text, expected)
        said = {"answer": reply.text, "tokens": reply.tokens, "reason": reply.reason}
        row[one] = {**said, **dataclasses.asdict(marks[one])}
    return row, marks


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
    output.line(f"Every row: {kept}")


def _counter(total: int) -> Callable[[int], None]:
    watched = sys.stderr.isatty()

    def tell(done: int) -> None:
        if watched:
            sys.stderr.write(f"\r{done:,} of {total:,} answered" + ("\n" if done == total else ""))
            sys.stderr.flush()

    return tell
