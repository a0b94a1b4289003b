"""Every run in a few figures: read once, kept by the size and the time of its files, so that a thousand runs list at once."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from .. import atomic, paths, recipe_file
from ..errors import FinetuiError
from . import care, event_log, state, store
from .follow import Follower, whole_status
from .store import RunFolder

Column = Literal["newest", "name", "state", "loss", "best", "time", "model", "data", "size"]
COLUMNS: tuple[Column, ...] = ("newest", "name", "state", "loss", "best", "time", "model", "data", "size")
VERSION = 3
"""Of what is kept: a summary of another version is made anew."""


@dataclass(frozen=True)
class Summary:
    """One run. Losses in nats per token, `seconds` of its training (of its newest job where it has not trained), `bytes` on the
    disk. None is not known."""

    run: str
    """The run's id."""
    name: str
    state: str
    aside: str = ""
    """What is to be said beside the state, such as `export failed`."""
    job: str = ""
    stage: str = ""
    """What it is at, where it is at work."""
    adapter: bool = False
    """It has left an adapter, from which another run can start."""
    resumable: bool = False
    unwritten: str = ""
    """Why its events cannot be written, where that is seen."""
    host: str = ""
    """The machine that it is on, where that is another one."""
    paused: bool = False
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    evaluation_loss: float | None = None
    best_evaluation_loss: float | None = None
    best_evaluation_step: int | None = None
    seconds: float = 0.0
    eta_seconds: float | None = None
    started_ts: float | None = None
    ended_ts: float | None = None
    """When it ended, or last said something."""
    card: state.Card | None = None
    """Why its newest job ended badly."""
    model: str = ""
    data: str = ""
    bytes: int = 0
    title: str = ""
    """The name that a person gave it."""
    tags: tuple[str, ...] = ()
    archived: bool = False

    @property
    def standing(self) -> str:
        return self.state

    @property
    def live(self) -> bool:
        """Whether a worker is at work on the run, or waits for its turn."""
        return self.state in ("queued", "starting", "running")

    @property
    def settled(self) -> bool:
        """Whether it stays so until one of its files changes."""
        return not self.live and (self.card is None or self.card.code != event_log.UNREADABLE)

    @property
    def best(self) -> float | None:
        """The best held-out loss, else the newest."""
        return self.best_evaluation_loss if self.best_evaluation_loss is not None else self.evaluation_loss


def summarize(run: RunFolder, follower: Follower | None = None) -> Summary:
    """Reads one run's figures. Blocking: about ten milliseconds for a thousand steps, less where `follower` has read it."""
    status, labels = whole_status(run, follower), care.labels(run)
    try:
        recipe = recipe_file.load(run.recipe)
        model, data = recipe.model.source, recipe.dataset.source
    except FinetuiError:
        model = data = ""
    return Summary(
        run=run.id,
        name=labels.title or status.name or run.id[16:] or run.id,
        state=status.standing,
        aside=status.aside,
        job=status.job,
        stage=status.stage if status.live else "",
        adapter=status.adapter,
        resumable=status.resumable,
        unwritten=status.unwritten,
        host=status.host if status.elsewhere else "",
        paused=status.paused,
        step=status.step,
        total_steps=status.total_steps,
        loss=status.loss,
        evaluation_loss=status.evaluation_loss,
        best_evaluation_loss=status.best_evaluation_loss,
        best_evaluation_step=status.best_evaluation_step,
        seconds=status.training_seconds or status.seconds,
        eta_seconds=status.eta_seconds,
        started_ts=status.started_ts,
        ended_ts=status.ended_ts or status.last_ts,
        card=status.card,
        model=model,
        data=data,
        bytes=care.size_of(run.path),
        title=labels.title,
        tags=labels.tags,
        archived=labels.archived,
    )


def _signature(run: RunFolder) -> list[int]:
    """Size and time of the files that a summary is made of; the exports' folder tells of what was written later."""
    found: list[int] = []
    labels = run.path / care.FILE
    for path in (run.events, run.recipe, run.manifest, labels, run.exports, run.checkpoints, run.adapter):
        try:
            seen = path.stat()
            found += [seen.st_size, seen.st_mtime_ns]
        except OSError:
            found += [-1, -1]
    return found


class Summaries:
    """All runs' summaries, kept in the cache folder. What lives is read anew each time. Safe from one thread at a time."""

    def __init__(self) -> None:
        self._path = paths.cache() / "runs.json"
        self._kept: dict[str, dict[str, Any]] | None = None
        self._followed: dict[str, Follower] = {}
        """The runs at work: of those, only what is new is read."""

    def read(self, most: int | None = None) -> list[Summary]:
        """Every run, or the newest `most`; newest first. Blocking."""
        kept = self._kept if self._kept is not None else self._load()
        now: dict[str, dict[str, Any]] = {} if most is None else dict(kept)
        followed: dict[str, Follower] = {}
        found: list[Summary] = []
        changed = False
        for run in store.all_runs()[:most]:
            key, signature = str(run.path), _signature(run)
            entry = kept.get(key)
            summary = _restored(entry) if entry is not None and entry.get("of") == signature else None
            if summary is None:
                follower = self._followed.pop(key, None) or Follower(run, whole=True)
                summary = summarize(run, follower)
                changed = changed or summary.settled
                if summary.live:
                    followed[key] = follower
            if summary.settled:
                now[key] = {"of": signature, "is": _plain(summary)}
            found.append(summary)
        if changed or len(now) != len(kept):
            with contextlib.suppress(OSError):
                paths.private_dir(self._path.parent)
                atomic.write_text(self._path, json.dumps({"version": VERSION, "runs": now}))
        self._kept, self._followed = now, followed
        return found

    def _load(self) -> dict[str, dict[str, Any]]:
        try:
            held = json.loads(self._path.read_bytes())
            return dict(held["runs"]) if held["version"] == VERSION else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


_FLOATS = {one.name for one in fields(Summary) if "float" in str(one.type)}


def _plain(summary: Summary) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(summary).items()
    }


def _restored(entry: dict[str, Any]) -> Summary | None:
    try:
        values = dict(entry["is"])
        for name in _FLOATS & values.keys():
            if values[name] is not None:
                values[name] = float(values[name])
        values["tags"] = tuple(values["tags"])
        values["card"] = state.Card(**values["card"]) if values["card"] is not None else None
        return Summary(**values) if {f.name for f in fields(Summary)} == set(values) else None
    except (KeyError, TypeError, ValueError):
        return None


def matching(found: Iterable[Summary], words: str) -> list[Summary]:
    """Those that have every word of `words` in their name, id, state, model, data or tags; `loss<0.5`, `best<0.4` and
    `loss>2` compare figures."""
    return [summary for summary in found if all(_matches(summary, word) for word in words.lower().split())]


def _matches(summary: Summary, word: str) -> bool:
    for sign in "<>":
        name, found, limit = word.partition(sign)
        if found and name in ("loss", "best", "step"):
            value = {"loss": summary.loss, "best": summary.best, "step": float(summary.step)}[name]
            try:
                return value is not None and (value < float(limit) if sign == "<" else value > float(limit))
            except ValueError:
                return False
    texts = (
        summary.name,
        summary.run,
        summary.state,
        summary.model,
        summary.data,
        *(f"#{t}" for t in summary.tags),
    )
    return any(word in text.lower() for text in texts)


def ordered(found: Sequence[Summary], column: Column, reverse: bool = False) -> list[Summary]:
    """`found` by a column: losses and names rising, times, sizes and starts falling; what is not known comes last."""

    def figure(summary: Summary) -> float | str | None:
        value = {
            "newest": summary.run[:15],
            "name": summary.name.lower(),
            "state": summary.state,
            "loss": summary.loss,
            "best": summary.best,
            "time": summary.seconds,
            "model": summary.model.lower(),
            "data": summary.data.lower(),
            "size": float(summary.bytes),
        }[column]
        return None if isinstance(value, float) and math.isnan(value) else value

    known = [summary for summary in found if figure(summary) is not None]
    rest = [summary for summary in found if figure(summary) is None]
    falling = column in ("newest", "time", "size")
    return [*sorted(known, key=figure, reverse=falling != reverse), *rest]  # type: ignore[arg-type]


def folder_of(summary: Summary) -> Path:
    """Where the run's folder stands."""
    return paths.runs() / summary.run
