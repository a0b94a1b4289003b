"""The account of a dataset: each row through the trainer's own encoding, counted, and summed up as a ledger."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import personal_data
from ..conversation import Conversation
from ..dataset_findings import Circumstances, findings
from ..dataset_ledger import (
    FIRST_LINES,
    DroppedRows,
    Histogram,
    Ledger,
    Quantiles,
    Secrets,
)
from ..dataset_walk import DUPLICATE, DroppedRow, Walk
from ..errors import FinetuiError
from ..recipe import Recipe
from . import columns as c
from .chat import Chat, Encoded
from .dataset import ANSWER_CUT, TOO_LONG, fate

if TYPE_CHECKING:
    import re

    import numpy as np

_BINS = 32


class Account:
    """Fed with the walk's items in order, a batch at a time."""

    def __init__(self, recipe: Recipe, chat: Chat, ends: frozenset[int]) -> None:
        """`ends` are the tokens at which the model stops to write."""
        self.recipe = recipe
        self.chat = chat
        self.columns = c.Columns()
        self._ends = ends
        self._markers = _pattern(chat.special_texts)
        self._writes_tools: bool | None = None
        self._writes_reasoning: bool | None = None
        self._secrets: dict[str, tuple[int, list[int]]] = {}
        self._cut_tokens = array("i")
        self._started = time.monotonic()
        self._conversations = array("q")
        """The row index of each conversation, in order: the walk's sides are given in that order."""

    def add(
        self, items: Sequence[tuple[Conversation | DroppedRow, bool]], rows: Iterable[Encoded | str]
    ) -> list[str]:
        """Counts the items (each with whether it comes from a held-out source). `rows` are its conversations, encoded.
        Returns why each is left out, or ""."""
        encoded = iter(rows)
        reasons: list[str] = []
        for item, held_out in items:
            if isinstance(item, DroppedRow):
                flags = c.DROPPED | (c.HELD_SOURCE if held_out else 0)
                if item.chosen or item.reason == DUPLICATE:
                    flags |= c.BY_CHOICE | (0 if item.chosen else c.DUPLICATE)
                reason = self.columns.reason_of(item.reason)
                self.columns.add(item.number, item.file, flags, reason)
                reasons.append(item.reason)
                continue
            self._conversations.append(len(self.columns))
            reasons.append(self._count(item, next(encoded), held_out))
        return reasons

    def _count(self, conversation: Conversation, row: Encoded | str, held_out: bool) -> str:
        flags = c.EVALUATION | c.HELD_SOURCE if held_out else 0
        reason = fate(row, self.recipe.dataset.long_rows)
        if conversation.rejected:
            flags |= c.REJECTED
        texts = [turn.text for turn in conversation.turns]
        whole = "\n".join(texts)
        kinds = personal_data.kinds(whole)
        if kinds:
            flags |= self._note(kinds, conversation.number)
        if self._markers is not None and conversation.turns[0].role != "text" and self._markers.search(whole):
            flags |= c.MARKERS
        if self.chat.folds_system and conversation.turns[0].role == "system":
            flags |= c.FOLDED
        if conversation.tools and not self._has_tools():
            flags |= c.TOOLS_HIDDEN
        if any(turn.reasoning for turn in conversation.turns) and not self._has_reasoning():
            flags |= c.REASONING_HIDDEN
        full = trained = 0
        if isinstance(row, str):
            full = -1
        else:
            full, trained = row.full_length, row.trained
            flags |= self._ending(row) | (c.CUT if row.cut else 0) | (c.DOUBLE_BOS if row.second_bos else 0)
            flags |= c.PLAIN if row.plain else 0
        if reason:
            flags |= c.DROPPED
            flags |= c.TOO_LONG if reason == TOO_LONG else c.ANSWER_LOST if reason == ANSWER_CUT else 0
        self.columns.add(
            conversation.number,
            conversation.file,
            flags,
            self.columns.reason_of(reason) if reason else -1,
            full,
            trained,
            hash((conversation.tools, *((t.role, t.text, t.calls, t.reasoning) for t in conversation.turns)))
            or 1,
            _asked(conversation),
        )
        return reason

    def _ending(self, row: Encoded) -> int:
        if not row.end_present:
            return 0
        flags = c.END_PRESENT | (c.END_TRAINED if row.end_trained else 0)
        return flags | (c.OTHER_END if self._ends and row.ids[row.end] not in self._ends else 0)

    def _note(self, kinds: tuple[str, ...], number: int) -> int:
        flags = 0
        for kind in kinds:
            count, lines = self._secrets.get(kind, (0, []))
            if len(lines) < FIRST_LINES:
                lines.append(number)
            self._secrets[kind] = (count + 1, lines)
            flags |= c.SECRET if kind in personal_data.SECRETS else c.PERSONAL
        return flags

    def _has_tools(self) -> bool:
        if self._writes_tools is None:
            self._writes_tools = self.chat.writes_tools()
        return self._writes_tools

    def _has_reasoning(self) -> bool:
        if self._writes_reasoning is None:
            self._writes_reasoning = self.chat.writes_reasoning()
        return self._writes_reasoning

    def finish(self, sides: Sequence[int]) -> None:
        """Marks what is held out (one entry of `sides` a conversation, in order), what is double, and what leaks."""
        import numpy as np

        held = np.frombuffer(bytes(sides), dtype=np.uint8)
        rows = np.array(self._conversations, dtype=np.int64)[: len(held)]
        self.columns.mark(rows[held[: len(rows)] == 1], c.EVALUATION)
        said = self.columns.numpy("said")
        self.columns.mark(_repeats(said), c.DUPLICATE)
        flags, asked = self.columns.numpy("flags"), self.columns.numpy("asked")
        used = (flags & c.DROPPED == 0) & (asked != 0)
        evaluation = used & (flags & c.EVALUATION != 0)
        training = used & ~evaluation
        leaking = evaluation & np.isin(asked, asked[training])
        self.columns.mark(np.flatnonzero(leaking), c.LEAKED)

    def ledger(self, walk: Walk, complete: bool) -> Ledger:
        """The sum of what was counted so far."""
        cols = self.columns
        flags, full, trained = cols.numpy("flags"), cols.numpy("full"), cols.numpy("trained")
        numbers, reasons = cols.numpy("number"), cols.numpy("reason")
        dropped = flags & c.DROPPED != 0
        kept = ~dropped
        evaluation = kept & (flags & c.EVALUATION != 0)
        training = kept & ~evaluation
        lengths = full[full >= 0]
        limit = self.recipe.model.max_length
        cut = full > limit
        ending = kept & (flags & c.END_PRESENT != 0)
        detection = walk.detection
        ledger = Ledger(
            read=len(cols),
            kept=int(kept.sum()),
            dropped=_dropped(reasons[dropped], numbers[dropped], cols.reasons),
            train_rows=int(training.sum()),
            evaluation_rows=int(evaluation.sum()),
            tokens=int(full[training].clip(max=limit).sum(dtype="q")),
            trained_tokens=int(trained[training].sum(dtype="q")),
            quantiles=_quantiles(lengths),
            histogram=_histogram(lengths, limit),
            max_length=limit,
            cut_rows=int(cut.sum()),
            cut_tokens=int((full[cut].astype("q") - limit).sum()),
            answers_lost=int((flags & c.ANSWER_LOST != 0).sum()),
            ends_present=int(ending.sum()),
            ends_trained=int((kept & (flags & c.END_TRAINED != 0)).sum()),
            double_bos=int((kept & (flags & c.DOUBLE_BOS != 0)).sum()),
            system_folded=int((kept & (flags & c.FOLDED != 0)).sum()),
            duplicates=int((flags & c.DUPLICATE != 0).sum()),
            leaked_rows=int((flags & c.LEAKED != 0).sum()),
            secrets=self._secret_kinds(),
            complete=complete,
            seconds=time.monotonic() - self._started,
            format=detection.format if detection else "",
            format_reason=detection.reason if detection else "",
            format_confidence=float(getattr(detection, "confidence", 1.0)) if detection else 0.0,
            mapping=_mapping(detection),
            source_rows=walk.rows_read,
            preference_rows=int((flags & c.REJECTED != 0).sum()),
        )
        return replace(ledger, findings=findings(self._circumstances(walk, ledger, flags, full, numbers)))

    def _secret_kinds(self) -> tuple[Secrets, ...]:
        return tuple(
            Secrets(
                kind,
                "warning" if kind in personal_data.SECRETS else "note",
                self._secrets[kind][0],
                tuple(self._secrets[kind][1]),
            )
            for kind in personal_data.KINDS
            if kind in self._secrets
        )

    def _circumstances(
        self,
        walk: Walk,
        ledger: Ledger,
        flags: np.ndarray[Any, Any],
        full: np.ndarray[Any, Any],
        numbers: np.ndarray[Any, Any],
    ) -> Circumstances:
        def marked(flag: int, where: Any = True) -> tuple[int, tuple[int, ...]]:
            found = (flags & flag != 0) & where
            return int(found.sum()), _first(numbers[found])

        kept = flags & c.DROPPED == 0
        limit = self.recipe.model.max_length
        whole = kept & (full <= limit)
        unended = whole & (flags & c.END_TRAINED == 0)
        faulty = (flags & c.DROPPED != 0) & (flags & (c.BY_CHOICE | c.TOO_LONG | c.ANSWER_LOST) == 0)
        refusal = evaluation_refusal = None
        if ledger.complete:
            refusal = _refused(lambda: walk.require_usable(self.recipe.dataset.source))
            evaluation_refusal = _refused(walk.require_usable_evaluation)
        return Circumstances(
            recipe=self.recipe,
            ledger=ledger,
            refusal=refusal,
            evaluation_refusal=evaluation_refusal,
            has_template=self.chat.has_template,
            plain_text=bool((flags & c.PLAIN != 0).any()),
            renderable=int((full >= 0).sum()),
            rendered_tokens=int(full[full >= 0].sum(dtype="q")),
            cut=marked(c.CUT),
            answers_lost=marked(c.ANSWER_LOST),
            too_long=marked(c.TOO_LONG),
            faulty=(int(faulty.sum()), _first(numbers[faulty])),
            unended=(int(unended.sum()), _first(numbers[unended])),
            other_end=marked(c.OTHER_END, kept),
            double_bos=marked(c.DOUBLE_BOS, kept),
            folded=marked(c.FOLDED, kept),
            duplicates=marked(c.DUPLICATE, kept),
            leaked=marked(c.LEAKED),
            secret=marked(c.SECRET, kept),
            personal=marked(c.PERSONAL, kept),
            markers=marked(c.MARKERS, kept),
            tools_hidden=marked(c.TOOLS_HIDDEN),
            reasoning_hidden=marked(c.REASONING_HIDDEN),
            rejected=marked(c.REJECTED, kept),
        )


def _refused(check: Callable[[], object]) -> FinetuiError | None:
    try:
        check()
    except FinetuiError as error:
        return error
    return None


def _asked(conversation: Conversation) -> int:
    """A hash of what is asked, white space and case aside, as the split takes it; 0 where nothing is."""
    said = "\x00".join([turn.text for turn in conversation.turns if turn.role == "user"])
    return hash(" ".join(said.casefold().split())) or 1 if said else 0


def _pattern(texts: Sequence[str]) -> re.Pattern[str] | None:
    import re

    long = [re.escape(text) for text in texts if len(text) > 2]
    return re.compile("|".join(long)) if long else None


def _first(numbers: np.ndarray[Any, Any]) -> tuple[int, ...]:
    return tuple(int(n) for n in numbers[:FIRST_LINES])


def _repeats(said: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The rows whose hash an earlier row has; 0 counts as no hash."""
    import numpy as np

    order = np.argsort(said, kind="stable")
    ordered = said[order]
    again = np.zeros(len(said), dtype=bool)
    again[1:] = (ordered[1:] == ordered[:-1]) & (ordered[1:] != 0)
    return np.sort(order[again])


def _dropped(
    reasons: np.ndarray[Any, Any], numbers: np.ndarray[Any, Any], names: Sequence[str]
) -> tuple[DroppedRows, ...]:
    import numpy as np

    counts = np.bincount(reasons, minlength=len(names)) if len(reasons) else np.zeros(len(names), int)
    made = [
        DroppedRows(
            names[int(at)], int(counts[at]), _first(numbers[np.flatnonzero(reasons == at)[:FIRST_LINES]])
        )
        for at in np.argsort(-counts, kind="stable")
        if counts[at]
    ]
    return tuple(made)


def _quantiles(lengths: np.ndarray[Any, Any]) -> Quantiles:
    import numpy as np

    if not len(lengths):
        return Quantiles()
    p5, p50, p95, p99 = np.percentile(lengths, [5, 50, 95, 99], method="inverted_cdf")
    return Quantiles(int(lengths.min()), int(p5), int(p50), int(p95), int(p99), int(lengths.max()))


def _histogram(lengths: np.ndarray[Any, Any], limit: int) -> Histogram:
    """Bins of one width, reaching past the 99th percentile and, where rows do, past the limit; the last takes the rest."""
    import numpy as np

    if not len(lengths):
        return Histogram()
    most = int(lengths.max())
    reach = int(np.percentile(lengths, 99) * 1.2) + 1
    if most > limit:
        reach = max(reach, min(most, int(limit * 1.1)))
    width = max(1, -(-min(reach, most + 1) // _BINS))
    edges = list(range(0, min(reach, most + 1) + width, width))
    if edges[-1] <= most:
        edges.append(most + 1)
    counts, _ = np.histogram(lengths, bins=edges)
    return Histogram(tuple(edges), tuple(int(n) for n in counts))


def _mapping(detection: Any) -> tuple[tuple[str, str], ...]:
    used = getattr(detection, "mapping", None) or {}
    pairs = used.items() if hasattr(used, "items") else used
    return tuple((str(role), str(column)) for role, column in pairs)
