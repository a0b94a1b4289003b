"""Runs the benchmarks: `python -m tests.bench [NAME …] [--json]`."""

from __future__ import annotations

import sys

from . import attach, chat, inspect, listing, live, overhead, paint, startup
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
}


def main() -> None:
    names = [a for a in sys.argv[1:] if not a.startswith("-")] or list(ALL)
    unknown = [n for n in names if n not in ALL]
    if unknown:
        sys.exit(f"no benchmark called {unknown[0]}; there are {', '.join(ALL)}")
    results: list[Result] = []
    for name in names:
        print(f"running {name} …", file=sys.stderr)
        results += ALL[name]()
    show(results, "--json" in sys.argv)


main()
