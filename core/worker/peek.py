"""A look at a dataset in a process of its own: `python -m finetui.core.worker.peek`.

Reads one JSON object on standard input, the recipe's dataset section or `{"splits_of": a hub dataset}`, and writes one
on standard output: `{"facts": …}`, `{"splits": {config: [split, …]}}`, or `{"error": {what, why, fix, code}}`. The caller may kill it at any time. Hub datasets are streamed:
only what holds the first rows is fetched. Whatever the libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from .. import hub
from ..dataset import DatasetFacts, estimated, examine, source_kind
from ..dataset_formats import UnknownFormat
from ..errors import FinetuiError
from ..recipe import DatasetSection
from ..secrets import redact
from ..text import one_line
from . import hub_rows

if TYPE_CHECKING:
    from datasets import IterableDataset

Beginnings = dict[tuple[str, str], int | None]
"""(source, split) of hub datasets that were not read whole, and their rows, where the hub states them."""

LOOK_ROWS = 2000
"""At most so many rows of a hub dataset are fetched for the look."""

LOOK_SECONDS = 3.0
"""How long rows are fetched, from the first one on."""


def peek(section: DatasetSection) -> DatasetFacts:
    """The facts of the dataset that `section` names. Raises FinetuiError as `core.dataset.inspect` does."""
    if source_kind(section.source) == "hub":
        return _peek_hub(section)
    opened, beginnings = _opener(section, None)
    return _without_unknown(examine(section, opened), section, beginnings)


def _peek_hub(section: DatasetSection) -> DatasetFacts:
    unreachable = not hub.is_offline() and hub.status() is None
    if unreachable:
        os.environ["HF_HUB_OFFLINE"] = (
            "1"  # the libraries, imported from here on, would try for half a minute
        )
    try:
        stream = open_stream(section)
        rows, whole = _first_rows(stream)
    except FinetuiError:
        raise
    except Exception as error:
        card = hub_rows.card(error, section.source)
        if unreachable and card.code == "hub-offline":
            card = hub.offline_card(
                section.source, "dataset", f"No answer from {one_line(hub.endpoint(), 100)}."
            )
        raise card from error

    opened, beginnings = _opener(section, rows)
    stated = None if whole else _stated_rows(stream, section.split)
    facts = examine(section, opened, stated)
    if not whole:
        facts = replace(facts, rows_exact=False)
    if not whole and stated is None:
        facts = replace(facts, rows=None, train_rows=None, evaluation_rows=None)
    elif not whole and stated is not None and facts.rows_read and facts.rows:
        facts = estimated(facts, section, round(stated * (1 - facts.dropped_rows / facts.rows_read)))
    held_out = (section.evaluation_source or section.source, section.evaluation_split or section.split)
    if section.evaluation_split and held_out in beginnings:
        facts = replace(facts, evaluation_rows=beginnings[held_out])
    return replace(_without_unknown(facts, section, beginnings), bytes=_stated_bytes(stream))


def _without_unknown(facts: DatasetFacts, section: DatasetSection, beginnings: Beginnings) -> DatasetFacts:
    """`facts` without the counts that nobody knows: of sources mixed in, only the beginning was read."""
    if any((name, section.split) in beginnings for name in section.mix or {}):
        return replace(facts, rows=None, train_rows=None, rows_exact=False)
    return facts


def _opener(
    section: DatasetSection, rows: list[Mapping[str, Any]] | None
) -> tuple[Callable[[str, str | None, str], list[Mapping[str, Any]]], Beginnings]:
    """What gives the first rows of hub datasets (`rows` are those of the section's own), and what of them was not read
    whole, with the number of rows that the hub states."""
    beginnings: Beginnings = {}
    kept: dict[tuple[str, str | None, str], list[Mapping[str, Any]]] = {}
    if rows is not None:
        kept[section.source, section.config, section.split] = rows

    def opened(source: str, config: str | None, split: str) -> list[Mapping[str, Any]]:
        if (source, config, split) in kept:  # a look may read its rows twice
            return kept[source, config, split]
        asked = section.model_copy(update={"source": source, "config": config, "split": split})
        try:
            stream = open_stream(asked)
            found, whole = _first_rows(stream)
        except FinetuiError:
            raise
        except Exception as error:  # the edge of `datasets`
            raise hub_rows.card(error, source) from error
        if not whole:
            beginnings[source, split] = _stated_rows(stream, split)
        kept[source, config, split] = found
        return found

    return opened, beginnings


def _first_rows(stream: IterableDataset) -> tuple[list[Mapping[str, Any]], bool]:
    """The first rows, and whether they are all."""
    rows: list[Mapping[str, Any]] = []
    until: float | None = None
    for row in stream:
        if len(rows) >= LOOK_ROWS or (until is not None and time.monotonic() > until):
            return rows, False
        until = until or time.monotonic() + LOOK_SECONDS
        rows.append(row)
    return rows, True


def open_stream(section: DatasetSection) -> IterableDataset:
    """The hub dataset's split as a stream of rows, images and sound left undecoded. Raises as `hub_rows.opened` does."""
    if hub.is_offline():
        return hub_rows.opened(section)  # as an earlier run prepared it in the cache of `datasets`
    return hub_rows.opened(section, streaming=True)


def _stated_rows(stream: IterableDataset, split: str) -> int | None:
    splits = stream.info.splits or {}
    known = splits.get(split)
    return known.num_examples if known is not None and known.num_examples else None


def _stated_bytes(stream: IterableDataset) -> int | None:
    return stream.info.download_size or None


def _reply(request: bytes) -> dict[str, Any]:
    source = asked_for_splits(request)
    if source is not None:
        return {"splits": _splits_of(source)}
    facts = peek(DatasetSection.model_validate_json(request))
    return {"facts": TypeAdapter(DatasetFacts).dump_python(facts, mode="json")}


def asked_for_splits(request: bytes) -> str | None:
    """The hub dataset of a request for configurations and splits, or None for one that holds a dataset section."""
    try:
        source = json.loads(request).get("splits_of")
    except (ValueError, AttributeError):
        return None
    return source if isinstance(source, str) else None


def _splits_of(source: str) -> dict[str, tuple[str, ...]]:
    if not hub.is_offline() and hub.status() is None:
        raise hub.offline_card(source, "dataset")
    try:
        return hub_rows.splits_of(source)
    except FinetuiError:
        raise
    except Exception as error:  # the edge of `datasets`
        raise hub_rows.card(error, source) from error


def main() -> None:
    """Answers one request. The exit code is 0 with facts or with a card."""
    answer_to = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    reply: dict[str, Any]
    try:
        reply = _reply(sys.stdin.buffer.read())
    except FinetuiError as error:
        reply = {"error": {"what": error.what, "why": error.why, "fix": error.fix, "code": error.code}}
        if isinstance(error, UnknownFormat):
            reply["error"] |= {"columns": error.columns, "examples": error.examples}
    except ValidationError as error:
        reply = {
            "error": {
                "what": "The request is not a dataset section.",
                "why": str(error),
                "fix": "",
                "code": "recipe",
            }
        }
    except Exception as error:  # this process's edge
        import traceback

        sys.stderr.write(redact(traceback.format_exc()))
        why = one_line(redact(f"{type(error).__name__}: {error}"), 300)
        reply = {
            "error": {
                "what": "The dataset could not be read.",
                "why": why,
                "fix": "",
                "code": "dataset-broken",
            }
        }
    with answer_to:
        answer_to.write(json.dumps(reply).encode())
        answer_to.flush()
    sys.stderr.flush()
    os._exit(0)  # streams of `datasets` may hold threads that would keep the process for a while


if __name__ == "__main__":
    main()
