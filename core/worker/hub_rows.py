"""Rows of a hub dataset, for the look and for the training alike: opened by `datasets`, failures as cards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import hub
from ..errors import FinetuiError
from ..recipe import DatasetSection
from ..secrets import hub_token, redact
from ..text import one_line

if TYPE_CHECKING:
    from datasets import IterableDataset


def opened(section: DatasetSection, *, streaming: bool = False) -> IterableDataset:
    """The rows of the split that `section` names, images and sound left undecoded.

    Without `streaming` the split is downloaded into the hub's cache first, or taken from there. Raises FinetuiError
    (dataset-split) that lists what there is where the configuration or the split is not found, and whatever `datasets`
    raises; `card` makes a card of that.
    """
    from datasets import (
        Dataset,
        IterableDataset,
        get_dataset_config_names,
        get_dataset_split_names,
        load_dataset,
    )

    hub.quiet()
    token = hub_token() or False
    refusal = None if hub.is_offline() else _refusal(section.source)
    if refusal is not None and (streaming or refusal.code in ("hub-not-found", "hub-gated")):
        raise refusal
    try:
        found = load_dataset(
            section.source, name=section.config, split=section.split, streaming=streaming, token=token
        )
    except ValueError as error:
        if hub.is_offline():
            raise
        configs = get_dataset_config_names(section.source, token=token)
        if (section.config or "default") not in configs and len(configs) > 1:
            raise _choose(section, "configuration", section.config, configs) from error
        splits = get_dataset_split_names(section.source, section.config or configs[0], token=token)
        if section.split not in splits:
            raise _choose(section, "split", section.split, splits) from error
        raise
    except OSError as error:
        if refusal is not None:  # nothing in the cache either
            raise refusal from error
        raise
    rows = found.to_iterable_dataset() if isinstance(found, Dataset) else found
    assert isinstance(rows, IterableDataset)
    return rows.decode(False) if rows.features is not None else rows


def rows_of(source: str, config: str | None, split: str) -> IterableDataset:
    """The rows of a hub dataset for `dataset_walk.Walk`, downloaded first. Raises as `opened` does."""
    asked: dict[str, str | None] = {"source": source, "config": config, "split": split}
    return opened(DatasetSection.model_validate(asked))


MAX_CONFIGS = 200
"""More configurations than that are not asked for their splits."""


def splits_of(source: str) -> dict[str, tuple[str, ...]]:
    """The configurations of a hub dataset and their splits. Raises FinetuiError, and whatever `datasets` raises."""
    from datasets import get_dataset_config_names, get_dataset_split_names

    hub.quiet()
    token = hub_token() or False
    if not hub.is_offline():
        refusal = _refusal(source)
        if refusal is not None:
            raise refusal
    configs = get_dataset_config_names(source, token=token)[:MAX_CONFIGS]
    return {name: tuple(get_dataset_split_names(source, name, token=token)) for name in configs}


def _refusal(source: str) -> FinetuiError | None:
    """Why the hub does not give the dataset `source`, asked once: `datasets` asks for half a minute, and then guesses."""
    from huggingface_hub import HfApi

    try:
        HfApi(endpoint=hub.endpoint(), token=hub_token() or False).dataset_info(
            source, timeout=hub.TIMEOUT_SECONDS
        )
    except Exception as error:  # the edge of huggingface_hub
        return hub.card(error, source, "dataset")
    return None


def _choose(section: DatasetSection, noun: str, asked: str | None, there: Sequence[str]) -> FinetuiError:
    names = ", ".join(one_line(str(name), 40) for name in there[:12]) + (", …" if len(there) > 12 else "")
    wanted = (
        f"has no {noun} named {one_line(asked, 40)}" if asked else f"has several {noun}s, and none is named"
    )
    return FinetuiError(
        f"{one_line(section.source, 100)} {wanted}.",
        f"It has: {names}.",
        f"Set the {noun} to one of these.",
        code="dataset-split",
    )


def card(error: Exception, source: str) -> FinetuiError:
    """The card for what `datasets` raised over the hub dataset `source`."""
    from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError, DatasetNotFoundError

    text = str(error)
    if "gated" in text.lower():
        return hub.gated_card(source, "dataset")
    if "scripts are no longer supported" in text:
        return FinetuiError(
            f"{one_line(source, 100)} is a program, not a file of rows.",
            "It would run code from its own repository, and finetui runs no remote code.",
            "Look on the hub for a version of it in Parquet or JSONL.",
            code="dataset-remote-code",
        )
    found = hub.card(error, source, "dataset")
    if found.code != "hub-failed":
        return found
    if isinstance(error, DataFilesNotFoundError | FileNotFoundError) and not isinstance(
        error, DatasetNotFoundError
    ):
        return FinetuiError(
            f"{one_line(source, 100)} holds no rows that can be read.",
            "There is no Parquet, JSONL, JSON, CSV or text file in it.",
            "Choose another dataset.",
            code="dataset-empty",
        )
    if isinstance(error, DatasetNotFoundError):
        return hub.not_found_card(source, "dataset")
    if isinstance(error, DatasetGenerationError) or type(error).__module__.startswith("pyarrow"):
        return FinetuiError(
            f"The rows of {one_line(source, 100)} cannot be read.",
            one_line(redact(str(error.__cause__ or error)), 300),
            "A file of it is damaged or cut off: choose another dataset, or download and mend it.",
            code="dataset-broken",
        )
    return found
