"""The dataset step in the worker: rows as conversations, and conversations as the tokens that the trainer gets."""

from __future__ import annotations

import collections
import hashlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import dataset as dataset_step
from .. import system_prompt
from ..conversation import Conversation, Turns
from ..dataset import LoadedDataset
from ..errors import FinetuiError
from ..recipe import Recipe
from ..runs.events import DatasetReady, Warned
from . import failures, hub_rows
from .chat import Chat, Encoded
from .control import Stopped
from .events import EventWriter

CHUNK = 256
"""Conversations tokenized at once: enough for the tokenizer's threads, few enough for a lively progress."""

ANSWER_CUT = "its answer is cut off"
TOO_LONG = "longer than the sequence length"
NOTHING_LEARNED = "nothing to learn"


def fate(row: Encoded | str, long_rows: str) -> str:
    """Why `row` is left out of training, or "" where it is kept. Trainer and inspector both decide by this."""
    if isinstance(row, str):
        return row
    if row.cut and long_rows == "drop":
        return TOO_LONG
    if not row.trained:
        return ANSWER_CUT if row.cut else NOTHING_LEARNED
    return ""


@dataclass(frozen=True)
class Tokens:
    """Rows ready for the trainer: a `datasets.Dataset` with input_ids and labels, and what was counted on the way."""

    rows: Any
    count: int
    tokens: int
    trained_tokens: int
    cut: int
    longest: int
    dropped: collections.Counter[str]
    ended: int
    """Rows in which an end-of-text token is learned."""
    plain: bool
    """They are plain writing, where an end is no must."""
    digest: str


@dataclass(frozen=True)
class Prepared:
    """Both sides of the split, tokenized, with the conversations that samples are taken from."""

    train: Tokens
    evaluation: Tokens | None
    prompts: tuple[Conversation, ...]
    """Held-out conversations, or training ones where nothing is held out."""
    evaluation_conversations: tuple[Conversation, ...]
    ready: DatasetReady


def load(recipe: Recipe, writer: EventWriter, check: Callable[[], None]) -> LoadedDataset:
    """The recipe's rows as conversations. A hub dataset is downloaded into the hub's cache."""

    def progress(rows: int) -> None:
        check()
        writer.progress("dataset", rows, 0, "rows")

    writer.progress("dataset", text="reading")
    return read(recipe, progress)


def read(recipe: Recipe, progress: Callable[[int], None]) -> LoadedDataset:
    """As `load`; `progress` is given how many rows have been read, and may raise to stop."""
    section = recipe.dataset
    try:
        return dataset_step.load(section, recipe.training.seed, progress, hub_rows.rows_of)
    except (FinetuiError, Stopped):
        raise
    except Exception as error:  # the edge of `datasets`, which lets through what all its libraries raise
        if failures.is_of_this_machine(error):
            raise
        raise hub_rows.card(error, section.source) from error


def tokenize(
    chat: Chat,
    conversations: Sequence[Turns],
    progress: Callable[[int], None],
    long_rows: str = "cut",
) -> Tokens:
    """`conversations` as the trainer's rows. Rows in which nothing is learned (after the cut) are dropped and counted."""
    import pyarrow as pa
    from datasets import Dataset

    ids, labels, ends = array("i"), array("i"), array("q", [0])
    dropped: collections.Counter[str] = collections.Counter()
    trained = cut = longest = ended = 0
    plain = False
    for start in range(0, len(conversations), CHUNK):
        for row in chat.encode(conversations[start : start + CHUNK]):
            cut += isinstance(row, Encoded) and row.cut
            reason = fate(row, long_rows)
            if reason or isinstance(row, str):
                dropped[reason] += 1
                continue
            _append(row, ids, labels, ends)
            trained += row.trained
            ended += row.end_trained
            plain = plain or row.plain
            longest = max(longest, row.length)
        progress(min(start + CHUNK, len(conversations)))

    def column(values: array[int]) -> Any:
        flat = pa.array(memoryview(values) if len(values) else [], type=pa.int32())
        return pa.LargeListArray.from_arrays(pa.array(ends, type=pa.int64()), flat)

    table = pa.table({"input_ids": column(ids), "labels": column(labels)})
    digest = hashlib.sha256(ids.tobytes() + labels.tobytes() + ends.tobytes()).hexdigest()
    return Tokens(
        Dataset(table), len(ends) - 1, len(ids), trained, cut, longest, dropped, ended, plain, digest
    )


def _append(row: Encoded, ids: array[int], labels: array[int], ends: array[int]) -> None:
    ids.extend(row.input_ids)
    labels.extend(row.labels)
    ends.append(len(ids))


def prepare(recipe: Recipe, tokenizer: Any, writer: EventWriter, check: Callable[[], None]) -> Prepared:
    """Reads, splits and tokenizes the recipe's dataset. Raises FinetuiError (dataset-nothing-learned, dataset-answers-cut and others)."""
    loaded = load(recipe, writer, check)
    chat = Chat(tokenizer, recipe.model.max_length)
    if not chat.has_template and not any(c.turns[0].role == "text" for c in loaded.train):
        raise failures.no_chat_template()
    total = len(loaded.train) + len(loaded.evaluation)
    if chat.folds_system and any(c and c[0].role == "system" for c in loaded.train[:50]):
        writer.emit(
            Warned(
                "system-folded",
                "This model's chat template has no system turn.",
                "System prompts are put at the head of the first question, in training and in samples.",
                "Do the same when you use the finished model.",
            )
        )

    def progress(before: int) -> Callable[[int], None]:
        def tell(done: int) -> None:
            check()
            writer.progress("tokenize", before + done, total, "rows")

        return tell

    long_rows = recipe.dataset.long_rows
    train = tokenize(chat, loaded.train, progress(0), long_rows)
    held_out = None
    if loaded.evaluation:
        held_out = tokenize(chat, loaded.evaluation, progress(len(loaded.train)), long_rows)
    if train.trained_tokens == 0:
        raise _nothing_learned(recipe, train, len(loaded.train))
    if not train.ended and not train.plain:
        raise _never_ends(recipe, train)
    evaluation = held_out if held_out is not None and held_out.count else None
    _warn(recipe, train, writer)
    ready = DatasetReady(
        format=loaded.detection.format,
        rows=train.count,
        evaluation_rows=evaluation.count if evaluation else 0,
        dropped=loaded.dropped_rows
        + sum(train.dropped.values())
        + sum((held_out.dropped if held_out else {}).values()),
        tokens=train.tokens,
        trained_tokens=train.trained_tokens,
        cut_rows=train.cut,
        longest=train.longest,
        fingerprint="sha256:"
        + hashlib.sha256((train.digest + (held_out.digest if held_out else "")).encode()).hexdigest(),
        system_prompt=system_prompt.shared((*loaded.train, *loaded.evaluation)),
    )
    return Prepared(train, evaluation, loaded.evaluation or loaded.train, loaded.evaluation, ready)


def _warn(recipe: Recipe, train: Tokens, writer: EventWriter) -> None:
    if train.cut:
        writer.emit(
            Warned(
                "rows-cut",
                f"{train.cut} of {train.count + sum(train.dropped.values())} rows are longer than {recipe.model.max_length} tokens.",
                "They are cut there, so the ends of their answers are not learned.",
                "Raise the sequence length, or shorten the rows.",
            )
        )
    if train.dropped:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in train.dropped.most_common(3))
        writer.emit(
            Warned(
                "rows-dropped",
                f"{sum(train.dropped.values())} rows are left out.",
                f"In them nothing could be learned: {reasons}.",
                "Look at these rows in the dataset.",
            )
        )


def _never_ends(recipe: Recipe, train: Tokens) -> FinetuiError:
    all_cut = train.cut >= train.count
    return FinetuiError(
        "No row teaches the model to stop.",
        f"All {train.count} rows are longer than {recipe.model.max_length} tokens, and their ends are cut off."
        if all_cut
        else "In none of them is an end-of-text token learned.",
        "Raise the sequence length, or shorten the rows."
        if all_cut
        else "Let rows end with an answer, or choose a model whose chat template ends its turns.",
        code="dataset-answers-cut" if all_cut else "dataset-no-end",
    )


def _nothing_learned(recipe: Recipe, train: Tokens, rows: int) -> FinetuiError:
    if not rows:
        return FinetuiError(
            "There are no rows to train on.",
            "Every row was dropped or held out.",
            "Lower the held-out share, or look at the rows.",
            code="dataset-nothing-learned",
        )
    reasons = ", ".join(
        f"{reason} ({count} of {rows} rows)" for reason, count in train.dropped.most_common(3)
    )
    cut = train.dropped[ANSWER_CUT] + train.dropped[TOO_LONG]
    return FinetuiError(
        "Nothing is left to train on.",
        f"In no row is a token to be learned: {reasons}.",
        f"Raise the sequence length: at {recipe.model.max_length} tokens every answer is cut off."
        if cut == rows
        else "Check that the rows have answers, and that this model's chat template fits them.",
        code="dataset-answers-cut" if cut == rows else "dataset-nothing-learned",
    )
