"""`finetui eval`: base and tuned asked the same prompts, and scored."""

from __future__ import annotations

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
    from ...core.talk import Side


def evaluate(
    target: TargetArgument,
    prompts: Annotated[
        str,
        typer.Argument(
            metavar="PROMPTS", help="A dataset file in any format; a row's last answer is what is expected."
        ),
    ],
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
    kept with the run, under talks/. Exit code 0 when all were answered, 4 where a file or run is missing, 6 where the model
    cannot be loaded, 1 where it ended on the way.
    """
    from ...core import talk_files, talk_score

    file = given_path(prompts)
    if not file.exists():
        raise FinetuiError(f"{file} is not there.", "", "Check the path.", code="prompts-missing")
    asked = talk_score.read(file)
    talker = opened(target, device)
    try:
        sides = sides_of(talker.target, side)
        sampling = sampling_of({"max_new_tokens": max_new_tokens})
        default = talker.target.system_prompt if system is None else system
        rows: list[dict[str, Any]] = []
        marks: dict[Side, list[talk_score.Marks]] = {one: [] for one in sides}
        tell = _counter(len(asked))
        for number, prompt in enumerate(asked, 1):
            messages = (
                prompt.messages if prompt.system or not default else (("system", default), *prompt.messages)
            )
            row: dict[str, Any] = {**talk_files.row(messages), "expected": prompt.expected}
            for one in sides:
                reply = talker.ask(one, messages, sampling).wait()
                judged = talk_score.mark(reply.text, prompt.expected)
                marks[one].append(judged)
                row[one] = {
                    "answer": reply.text,
                    "tokens": reply.tokens,
                    "reason": reply.reason,
                    **dataclasses.asdict(judged),
                }
            rows.append(row)
            tell(number)
        kept = talk_files.keep(talker.target, "eval", rows)
    except FinetuiError as error:
        if error.code != "talk-ended":
            raise
        output.card(error, as_json)
        raise typer.Exit(exits.FAILED) from error
    finally:
        talker.close()
    sums = {one: talk_score.summary(marks[one]) for one in sides}
    if as_json:
        output.data(
            {"prompts": len(asked), "rows": str(kept), **{k: dataclasses.asdict(v) for k, v in sums.items()}}
        )
        return
    output.line(f"{len(asked):,} prompts".ljust(24) + "".join(one.rjust(16) for one in sides))
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
