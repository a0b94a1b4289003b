"""Runs the benchmarks: `python -m tests.bench [NAME …] [--json]`. The soak is run where it is named."""

from __future__ import annotations

import sys

from . import attach, chat, export, inspect, listing, live, overhead, paint, soak, startup
from .measure import Result, show

ALL = {
    "startup": startup.measure,
    "paint": paint.measure,
    "overhead": overhead.measure,
    "inspect": inspect.measure,
    "attach": attach.measure,
    "live": live.measure,
    "listing": listing.measure,
    "chat": chat.measure,
    "export": export.measure,
    "soak": soak.measure,
}


def main() -> None:
    names = [a for a in sys.argv[1:] if not a.startswith("-")] or [n for n in ALL if n != "soak"]
    unknown = [n for n in names if n not in ALL]
    if unknown:
        sys.exit(f"no benchmark called {unknown[0]}; there are {', '.join(ALL)}")
    results: list[Result] = []
    for name in names:
        print(f"running {name} …", file=sys.stderr)
        results += ALL[name]()
    show(results, "--json" in sys.argv)


main()
