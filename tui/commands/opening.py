"""What `chat`, `eval` and `serve` begin with: a model to talk to, loaded; who of it answers, and how."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .recipes import usage

if TYPE_CHECKING:
    from ...core.talk import Sampling, Side, Target
    from ...core.talking import Talker

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FOLDER|GGUF",
        help="A run (also one that trains), an adapter's or model's folder, or a GGUF.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|gpu", help="auto leaves a GPU alone that is training.")
]


def opened(name: str, device: str) -> Talker:
    """The loaded target, what takes time said on standard error. Raises FinetuiError."""
    from ...core import talk
    from ...core.talking import Talker

    if device not in ("auto", "cpu", "gpu"):
        raise usage(f"{device} is no device.", "There are auto, cpu and gpu.", "Leave --device out.")
    target = talk.find(name)
    if device == "auto":
        plan = talk.plan_here(target)
        device = plan.device
        if plan.why:
            output.line(f"{plan.why} The CPU is used; --device gpu insists.", sys.stderr)
    talker = Talker(target, "cpu" if device == "cpu" else "gpu")
    try:
        watched, said = sys.stderr.isatty(), ""
        while not (now := talker.loading()).ready:
            if now.error is not None:
                raise now.error
            if watched and now.words != said:
                said = now.words
                output.line(f"{said} …", sys.stderr)
            talker.wait(0.2)
    except BaseException:
        talker.close()
        raise
    return talker


def sides_of(target: Target, wanted: str) -> tuple[Side, ...]:
    """Who of `target` answers: `wanted` is both, base or tuned. Raises FinetuiError."""
    if wanted == "both":
        return target.sides
    side: Side = "base" if wanted == "base" else "tuned"
    if wanted not in ("base", "tuned") or side not in target.sides:
        raise usage(
            f"{wanted} cannot answer here.", f"There is {', '.join(target.sides)}.", "Leave --side out."
        )
    return (side,)


def sampling_of(values: dict[str, Any], before: Sampling | None = None) -> Sampling:
    """`before` (or the usual) with those of `values` that are not None. Raises FinetuiError."""
    from pydantic import ValidationError

    from ...core.talk import Sampling

    known = before.model_dump() if before is not None else {}
    try:
        return Sampling.model_validate(known | {k: v for k, v in values.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise usage(
            f"{first['loc'][0]} cannot be used.", f"{first['msg']}.", "finetui chat --help tells them."
        ) from error
