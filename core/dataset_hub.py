"""What a hub dataset offers: its configurations, and the splits of each."""

from __future__ import annotations

import json
from collections.abc import Callable

from pydantic import TypeAdapter, ValidationError

from . import hub
from .dataset_peek import PEEK_SECONDS, ask, no_answer
from .errors import FinetuiError
from .text import one_line


def configs_and_splits(
    source: str, cancelled: Callable[[], bool] | None = None, timeout_seconds: float = PEEK_SECONDS
) -> dict[str, tuple[str, ...]]:
    """The configurations of the hub dataset `source`, each with its splits; the one that it takes by default stands first.

    Blocking, some seconds: call it from a thread. The names come from outside: clean them for display, and give them
    back as they are in `dataset.config` and `dataset.split`. Raises FinetuiError: dataset-missing for what is no hub id,
    dataset-remote-code, dataset-empty, dataset-slow, cancelled, hub-offline, hub-not-found, hub-gated, hub-failed.
    """
    if not hub.is_id(source):
        raise FinetuiError(
            f"{one_line(source, 100)} is not the id of a hub dataset.",
            "An id is written owner/name.",
            "Check the spelling.",
            code="dataset-missing",
        )
    request = json.dumps({"splits_of": source}).encode()
    try:
        found = TypeAdapter(dict[str, tuple[str, ...]]).validate_python(
            ask(request, source, cancelled, timeout_seconds)["splits"]
        )
    except (ValidationError, KeyError) as error:
        raise no_answer(source, "Its answer makes no sense.") from error
    first = [name for name in ("default",) if name in found]
    return {name: found[name] for name in [*first, *(name for name in found if name not in first)]}
