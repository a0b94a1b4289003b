"""The inspector's process: `python -m finetui.core.worker.inspect`.

Speaks JSON lines. The first line on standard input is `{"recipe": …, "patience": seconds}`, each further one a request
`{"id", "call", …}`; the end of input ends the process. On standard output: `progress`, `error`, `answer`, and `alive`
twice a second. The tokenizer is loaded without torch; rows come through `dataset_walk.Walk` and `chat.Chat`, as in training.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter

from .. import hub
from ..conversation import Conversation
from ..dataset_ledger import Ledger, SeenRow
from ..dataset_walk import DroppedRow, Walk
from ..errors import FinetuiError
from ..recipe import Recipe
from ..secrets import redact
from ..text import one_line
from . import answers, failures, shelf, tokenizer
from .account import Account
from .chat import Chat, Encoded
from .columns import Columns
from .outlet import Outlet, card
from .spool import Spool

FIRST_BATCH = 32
"""So few rows at first, so that the first page comes at once."""

BATCH = 256
BATCH_CHARACTERS = 2_000_000
BEAT_SECONDS = 0.5
NICENESS = 5
"""The screens that wait for it go first."""

MEMORY_BYTES = 6 * 1024**3
"""Of address space beyond what the process has at its start: what a hostile template may claim."""

_LEDGER: TypeAdapter[Ledger] = TypeAdapter(Ledger)

Batch = list[tuple[Conversation | DroppedRow, bool, Mapping[str, Any]]]
"""Each item of the walk, whether it comes from a held-out source, and the row as it stands in the file."""

Begun = tuple[Batch, Callable[[], list[Encoded | str]]]
"""A batch and what waits for its conversations' tokens."""


class Inspection:
    """One dataset, read to its end or until told to stop."""

    def __init__(self, recipe: Recipe, outlet: Outlet, patience_seconds: float) -> None:
        self.recipe = recipe
        self.outlet = outlet
        self.patience_seconds = patience_seconds
        self.cancelled = threading.Event()
        self.going = threading.Event()
        self.going.set()
        self.busy_since: float | None = None
        """Since when the template or the tokenizer has been at one batch."""
        self.columns: Columns | None = None
        self.spool: Spool | None = None
        self.files: tuple[str, ...] = ()
        self.complete = False
        self._chat: Chat | None = None
        self._chat_lock = threading.Lock()
        self._folder: Path | None = None
        self._work: Path | None = None

    def stage(self, words: str) -> None:
        self.outlet.say("progress", stage=words, rows=0, share=0.0, ready=False)

    def run(self) -> None:
        """Raises FinetuiError."""
        self.stage("looking for the tokenizer")
        self._folder = tokenizer.folder(self.recipe.model, self.stage)
        walk = Walk(self.recipe.dataset, self.recipe.training.seed, self._opener())
        name = self._key(walk)
        if name is not None and self._from_shelf(name):
            return
        self.stage("loading the tokenizer")
        chat = self.chat()
        ends = tokenizer.end_tokens(self._folder, chat.tokenizer)
        account = Account(self.recipe, chat, ends)
        self._work = shelf.workplace()
        self.spool = Spool(self._work / "rows")
        self.columns = account.columns
        try:
            self._read(walk, account)
        except (FinetuiError, MemoryError):
            raise
        except Exception as error:  # the edge of `datasets`, which lets through what all its libraries raise
            if all(isinstance(file, Path) for file in walk.files) or failures.is_of_this_machine(error):
                raise
            from . import hub_rows

            raise hub_rows.card(error, self.recipe.dataset.source) from error
        ledger = account.ledger(walk, complete=not self.cancelled.is_set())
        self.complete = ledger.complete
        if name is not None and self.complete:  # before it is told: whoever asked may end this process then
            kept = shelf.keep(name, self._work, ledger, account.columns, self.spool, self.files)
            if kept is not None:
                self._work = None
        self._tell(walk, ledger)

    def _opener(self) -> Any:
        def opened(source: str, config: str | None, split: str) -> Any:
            tokenizer.with_torch_again()
            from . import hub_rows

            hub.quiet()
            return hub_rows.rows_of(source, config, split)

        return opened

    def _key(self, walk: Walk) -> str | None:
        assert self._folder is not None
        self.files = tuple(str(f) for f in walk.files)
        with contextlib.suppress(OSError):
            return shelf.key(
                self.recipe, walk.files, tokenizer.fingerprint(self._folder), _templates(self._folder)
            )
        return None

    def _from_shelf(self, name: str) -> bool:
        found = shelf.find(name)
        if found is None:
            return False
        self.columns, self.spool, self.complete, self.files = found.columns, found.spool, True, found.files
        ledger = _LEDGER.dump_python(found.ledger, mode="json") | {"cached": True}
        self.outlet.say("progress", rows=found.ledger.read, share=1.0, ready=True, stage="", ledger=ledger)
        return True

    def chat(self) -> Chat:
        """The tokenizer with its template, loaded at the first need."""
        with self._chat_lock:
            if self._chat is None:
                assert self._folder is not None
                tokenizer.without_torch()
                self.busy_since = time.monotonic()
                self._chat = Chat(tokenizer.load(self._folder), self.recipe.model.max_length)
                self.busy_since = None
            return self._chat

    def _read(self, walk: Walk, account: Account) -> None:
        assert self.spool is not None
        told = -math.inf
        pause = 0.0
        begun: Begun | None = None
        with ThreadPoolExecutor(1, "tokens") as pool:
            for batch, ahead in self._batches(walk):
                begun, before = self._begun(batch, account, pool), begun
                if before is not None:
                    self._take(before, account)
                if not ahead:
                    self._take(begun, account)
                    begun = None
                now = time.monotonic()
                if now - told > max(BEAT_SECONDS, 20 * pause):
                    self._tell(walk, account.ledger(walk, complete=False))
                    told = time.monotonic()
                    pause = told - now
                self.going.wait()
                if self.cancelled.is_set():
                    break
            if begun is not None:
                self._take(begun, account)
        self.spool.finish()
        if not self.cancelled.is_set():
            account.finish(walk.sides())

    def _batches(self, walk: Walk) -> Iterator[tuple[Batch, bool]]:
        """The rows in batches, each with whether the next one may be read before it is counted: the first is wanted at
        once, and of the largest one in memory is enough."""
        batch: Batch = []
        characters = 0
        limit = FIRST_BATCH
        for item in walk:
            batch.append((item, walk.in_evaluation, walk.raw))
            if isinstance(item, Conversation):
                for turn in item.turns:
                    characters += len(turn.text)
            large = characters >= BATCH_CHARACTERS
            if len(batch) < limit and not large:
                continue
            yield batch, limit == BATCH and not large
            batch, characters, limit = [], 0, BATCH
        if batch:
            yield batch, False

    def _begun(self, batch: Batch, account: Account, pool: Executor) -> Begun:
        """The batch, rendered, its tokens on their way."""
        self.busy_since = time.monotonic()
        rows = account.chat.begin([item for item, _, _ in batch if isinstance(item, Conversation)], pool)
        self.busy_since = None
        return batch, rows

    def _take(self, begun: Begun, account: Account) -> None:
        assert self.spool is not None
        batch, rows = begun
        self.busy_since = time.monotonic()
        reasons = account.add([(item, held_out) for item, held_out, _ in batch], rows())
        self.busy_since = None
        for (item, _, raw), reason in zip(batch, reasons, strict=True):
            self.spool.add(raw, item if isinstance(item, Conversation) else None, item.number, reason)

    def _tell(self, walk: Walk, ledger: Ledger) -> None:
        self.outlet.say(
            "progress",
            rows=ledger.read,
            share=1.0 if ledger.complete else min(walk.share, 0.999),
            ready=True,
            stage="",
            ledger=_LEDGER.dump_python(ledger, mode="json"),
        )

    def close(self) -> None:
        if self._work is not None:
            shutil.rmtree(self._work, ignore_errors=True)

    def answer(self, request: Mapping[str, Any]) -> Any:
        """The answer to one request as JSON. Raises FinetuiError."""
        call = request["call"]
        if call == "cancel":
            self.cancelled.set()
            self.going.set()
            return None
        if call == "pause":
            (self.going.clear if request["on"] else self.going.set)()
            return None
        if self.columns is None or self.spool is None:
            raise FinetuiError(
                "No row has been read yet.",
                "The tokenizer is being loaded.",
                "Wait a moment.",
                code="row-missing",
            )
        rows = answers.Rows(self.columns, self.spool, self.chat, self.files, self.complete)
        if call == "row":
            return TypeAdapter(SeenRow).dump_python(rows.row(int(request["index"])), mode="json")
        if call == "find":
            return rows.find(str(request["text"]), int(request["after"]))
        if call == "jump":
            return rows.jump(str(request["to"]), int(request["nth"]))
        if call == "line":
            return rows.at_line(int(request["number"]))
        if call == "write_clean":
            return rows.write_clean(Path(request["path"]), tuple(request["drop"]))
        raise FinetuiError(f"There is no request {one_line(str(call), 40)}.", code="usage")


def _templates(folder: Path) -> str:
    text = ""
    for file in sorted(folder.glob("*")):
        if file.name.startswith(("chat_template", "tokenizer_config")) and file.is_file():
            text += file.read_text(encoding="utf-8", errors="replace")
    return text


def _serve(inspection: Inspection, source: IO[bytes]) -> None:
    for line in source:
        request: dict[str, Any] = {}
        try:
            request = json.loads(line)
            inspection.outlet.say("answer", id=request["id"], value=inspection.answer(request))
        except FinetuiError as error:
            inspection.outlet.say("answer", id=request.get("id"), error=card(error))
        except Exception as error:  # one request's edge: the reading goes on
            failed = _unknown(error)
            inspection.outlet.say("answer", id=request.get("id"), error=card(failed))
    inspection.close()
    os._exit(0)


def _beat(inspection: Inspection) -> None:
    while True:
        time.sleep(BEAT_SECONDS)
        inspection.outlet.say("alive")
        since = inspection.busy_since
        if since is not None and time.monotonic() - since > inspection.patience_seconds:
            inspection.outlet.error(too_slow(inspection.patience_seconds))
            inspection.close()
            os._exit(1)


def too_slow(seconds: float) -> FinetuiError:
    return FinetuiError(
        "The model's chat template does not come to an end.",
        f"A few rows kept it busy for {seconds:.0f} seconds.",
        "The template is broken or hostile: choose another model.",
        code="template-stuck",
    )


def _unknown(error: Exception) -> FinetuiError:
    import traceback

    sys.stderr.write(redact("".join(traceback.format_exception(error))))
    if isinstance(error, MemoryError):
        return FinetuiError(
            "The inspection needs more memory than it may have.",
            "A row, or the model's chat template, asks for several GiB at once.",
            "Choose another model, or leave out the largest rows.",
            code="inspect-memory",
        )
    if isinstance(error, OSError) and error.errno == 28:
        return FinetuiError(
            "The disk is full.",
            "The inspection keeps the rows that it has read in finetui's cache.",
            "Free some space, or set FINETUI_HOME to a folder on another disk.",
            code="disk-full",
        )
    return FinetuiError(
        "The dataset could not be inspected.",
        one_line(redact(f"{type(error).__name__}: {error}"), 300),
        "See `finetui doctor`.",
        code="inspect-failed",
    )


def _limit() -> None:
    """What one template or row may claim is bounded, whatever the machine has."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY_BYTES
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(
            resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )


def _guarded(run: Callable[[], None], outlet: Outlet) -> None:
    try:
        run()
    except FinetuiError as error:
        outlet.error(error)
    except Exception as error:  # this process's edge
        outlet.error(_unknown(error))


def main() -> None:
    outlet = Outlet(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)
    source = sys.stdin.buffer
    first = json.loads(source.readline() or b"{}")
    if not first:
        return
    inspection = Inspection(
        Recipe.model_validate_json(json.dumps(first["recipe"])), outlet, float(first["patience"])
    )
    _limit()
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    threading.Thread(target=_beat, args=(inspection,), name="beat", daemon=True).start()
    threading.Thread(target=_serve, args=(inspection, source), name="serve", daemon=True).start()
    _guarded(inspection.run, outlet)
    outlet.say("done")
    threading.Event().wait()  # rows are asked for until the input ends


if __name__ == "__main__":
    main()
