"""Runs the benchmarks: `python -m tests.bench [NAME …] [--json]`. The soak and the exports' memory are run where they are named."""

from __future__ import annotations

import sys

from . import attach, chat, export, export_memory, inspect, listing, live, overhead, paint, soak, startup
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
    "export_memory": export_memory.measure,
    "soak": soak.measure,
}

NAMED = ("export_memory", "soak")
"""Those that take many minutes."""


def main() -> None:
    names = [a for a in sys.argv[1:] if not a.startswith("-")] or [n for n in ALL if n not in NAMED]
    unknown = [n for n in names if n not in ALL]
    if unknown:
        sys.exit(f"no benchmark called {unknown[0]}; there are {', '.join(ALL)}")
    results: list[Result] = []
    for name in names:
        print(f"running {name} …", file=sys.stderr)
        results += ALL[name]()
    show(results, "--json" in sys.argv)


main()
