"""How fast the command line answers, against importing the library that it is made with."""

from __future__ import annotations

import sys

from .measure import FINETUI, Result, paired_ratio, wall_seconds


def measure() -> list[Result]:
    results = []
    for option in ("--help", "--version"):
        ratio, ours, theirs = paired_ratio(
            lambda option=option: wall_seconds([FINETUI, option]),
            lambda: wall_seconds([sys.executable, "-c", "import typer"]),
            rounds=15,
        )
        detail = f"finetui {option} {ours:.3f} s, import typer {theirs:.3f} s"
        results.append(Result(f"startup {option}", ratio, 3.0, "×", detail))
    return results
