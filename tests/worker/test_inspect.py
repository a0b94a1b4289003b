"""The inspector as the screens use it: what it counts and finds, what it answers, and what it keeps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetui.core import paths
from finetui.core.dataset_inspect import Inspector
from finetui.core.dataset_ledger import Finding, Ledger
from finetui.core.errors import FinetuiError

from ..hub_server import running
from . import harness
from .inspecting import KEY, MIXED, complete, ledger_of, talk, until, written


def finding(ledger: Ledger, code: str) -> Finding:
    (found,) = [f for f in ledger.findings if f.code == code]
    return found


@pytest.fixture(scope="module")
def mixed(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Inspector, Ledger, Path]]:
    folder = tmp_path_factory.mktemp("mixed")
    recipe = harness.recipe(tiny_model, written(folder / "rows.jsonl", MIXED), evaluation_share=0.0)
    inspector = Inspector.start(recipe)
    yield inspector, complete(inspector), folder
    inspector.close()


def test_the_ledger_adds_up(mixed: tuple[Inspector, Ledger, Path]) -> None:
    _, ledger, _ = mixed
    assert ledger.read == 10 == ledger.kept + ledger.dropped_rows
    assert ledger.kept == ledger.train_rows + ledger.evaluation_rows == 7
    by_reason = {d.reason: (d.count, d.lines) for d in ledger.dropped}
    assert by_reason["its answer is cut off"] == (1, (8,))
    assert by_reason["empty answer"] == (1, (7,))
    assert sum(count for count, _ in by_reason.values()) == 3
    assert ledger.cut_rows == 2 and ledger.answers_lost == 1
    assert ledger.quantiles.most == max(ledger.quantiles.most, 400) and ledger.max_length == 128
    assert sum(ledger.histogram.counts) == 8
    assert len(ledger.histogram.edges) == len(ledger.histogram.counts) + 1
    assert ledger.ends_trained == ledger.ends_present == 6
    assert not ledger.stops and ledger.worst == "warning"


def test_findings_have_counts_lines_and_actions(mixed: tuple[Inspector, Ledger, Path]) -> None:
    _, ledger, _ = mixed
    assert (finding(ledger, "secrets").count, finding(ledger, "secrets").lines) == (1, (4,))
    assert finding(ledger, "personal-data").lines == (2,)
    assert finding(ledger, "duplicates").lines == (5,) and ledger.duplicates == 1
    assert ("dataset.deduplicate", True) in finding(ledger, "duplicates").actions[0].change
    assert finding(ledger, "markers").lines == (9,)
    assert finding(ledger, "cut").lines == (6, 8)
    raises = [a for a in finding(ledger, "cut").actions if a.key == "raise-length"]
    (path, length), *_ = raises[-1].change
    assert path == "model.max_length" and isinstance(length, int) and length >= ledger.quantiles.most
    order = [f.severity for f in ledger.findings]
    assert order == sorted(order, key=["stop", "warning", "note"].index)
    assert KEY not in repr(ledger) and "jane" not in repr(ledger)


def test_rows_are_found_and_shown(mixed: tuple[Inspector, Ledger, Path]) -> None:
    inspector, ledger, _ = mixed
    row = inspector.row(0)
    assert "".join(s.text for s in row.spans if s.trained) == "first answer<|im_end|>"
    assert json.loads(row.raw) == MIXED[0] and row.number == 1
    assert inspector.row(2).dropped and inspector.row(2).number == 3 and not inspector.row(2).spans
    assert inspector.find("NEEDLE") == 9 and inspector.find("FÜNF") == 8
    assert inspector.find("first", 0) == 4 and inspector.find("first", 4) == 0
    assert inspector.find("nowhere") is None
    assert inspector.jump("longest") == 5 and inspector.jump("longest", 1) == 7
    assert (
        inspector.jump("cut", 0) == 5 and inspector.jump("cut", 1) == 7 and inspector.jump("cut", 2) is None
    )
    assert [inspector.jump("dropped", n) for n in range(4)] == [2, 6, 7, None]
    assert inspector.jump("unlearned") == 7
    assert inspector.jump("secrets") == 3 and inspector.jump("duplicates") == 4
    assert inspector.at_line(6) == 5 and inspector.at_line(99) is None
    shortest = inspector.jump("shortest")
    assert shortest is not None and inspector.row(shortest).full_tokens == ledger.quantiles.least
    cut = inspector.row(5)
    assert cut.spans[-1].cut and cut.tokens == 128 < cut.full_tokens
    assert (row.special_tokens, cut.special_tokens) == (4, 3)  # the end of the cut answer is not among them
    assert (
        cut.special_tokens
        == sum(s.special and not s.cut for s in cut.spans)
        < sum(s.special for s in cut.spans)
    )
    assert inspector.row(2).special_tokens == 0
    with pytest.raises(FinetuiError) as caught:
        inspector.row(10)
    assert caught.value.code == "row-missing"


def test_a_clean_copy_has_the_good_rows_as_they_stood(mixed: tuple[Inspector, Ledger, Path]) -> None:
    inspector, _, folder = mixed
    copy = inspector.write_clean(folder / "clean.jsonl", ("secrets", "duplicates"))
    rows = [json.loads(line) for line in copy.path.read_text(encoding="utf-8").splitlines()]
    assert rows == [MIXED[i] for i in (0, 1, 5, 8, 9)]
    assert (copy.written, copy.left_out) == (5, 5)
    before = copy.path.read_bytes()
    with pytest.raises(FinetuiError) as caught:
        inspector.write_clean(folder / "clean.jsonl")
    assert caught.value.code == "file-exists" and copy.path.read_bytes() == before
    with pytest.raises(FinetuiError) as caught:
        inspector.write_clean(folder / "no" / "such" / "folder.jsonl")
    assert caught.value.code == "file"
    assert sorted(p.name for p in folder.iterdir()) == ["clean.jsonl", "rows.jsonl"]


def test_a_second_look_is_taken_from_the_shelf(tiny_model: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "rows.jsonl", MIXED)
    recipe = harness.recipe(tiny_model, data, evaluation_share=0.0)
    first = ledger_of(recipe)
    again = Inspector.start(recipe)
    try:
        second = complete(again)
        assert not first.cached and second.cached
        assert (second.read, second.findings, second.tokens) == (first.read, first.findings, first.tokens)
        assert "".join(s.text for s in again.row(0).spans if s.trained) == "first answer<|im_end|>"
        assert again.jump("secrets") == 3 and again.find("needle") == 9
    finally:
        again.close()
    assert not ledger_of(harness.recipe(tiny_model, data, evaluation_share=0.0, max_length=64)).cached
    written(data, [*MIXED, talk("seven", "new")])
    assert ledger_of(recipe).read == 11


def test_damage_on_the_shelf_is_noticed(tiny_model: Path, tmp_path: Path) -> None:
    recipe = harness.recipe(tiny_model, written(tmp_path / "rows.jsonl", MIXED), evaluation_share=0.0)
    ledger_of(recipe)
    shelf = paths.cache() / "ledgers"
    newest = max((p for p in shelf.iterdir() if p.name[0] != "."), key=lambda p: p.stat().st_ctime)
    for name, damage in (("ledger.json", b"{"), ("columns.npz", b"PK"), ("rows", b"")):
        (newest / name).write_bytes(damage)
        found = ledger_of(recipe)
        assert found.read == 10 and not found.cached, name
        assert ledger_of(recipe).cached


def test_the_shelf_is_bounded(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetui.core.worker import shelf
    from finetui.core.worker.columns import Columns
    from finetui.core.worker.spool import Spool

    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    for number in range(shelf.MOST_ENTRIES + 3):
        work = shelf.workplace()
        spool = Spool(work / "rows")
        spool.finish()
        kept = shelf.keep(f"key{number:03}", work, Ledger(), Columns(), spool, ())
        assert kept is not None
        os.utime(kept / "ledger.json", (number, number))
        spool.close()
    names = sorted(p.name for p in shelf.root().iterdir())
    assert len(names) == shelf.MOST_ENTRIES
    assert names[-1] == f"key{shelf.MOST_ENTRIES + 2:03}" and "key000" not in names


@pytest.mark.parametrize(
    ("rows", "changes", "code"),
    [
        ([talk("q" * 300, "lost")] * 3, {}, "everything-cut"),
        ([talk("q", "a" * 300)] * 3, {}, "no-end"),
        ([talk("q", "a" * 300)] * 3, {"long_rows": "drop"}, "everything-cut"),
        ([talk("q", "")] * 3, {"format": "messages"}, "no-usable-rows"),
    ],
    ids=["answers-cut", "ends-cut", "all-dropped", "empty-answers"],
)
def test_what_cannot_be_trained_is_stopped_by_inspector_and_worker_alike(
    unsloth: None, tiny_model: Path, tmp_path: Path, rows: list[Any], changes: dict[str, Any], code: str
) -> None:
    from .in_process import Trainer

    recipe = harness.recipe(
        tiny_model, written(tmp_path / "rows.jsonl", rows), **({"evaluation_share": 0.0} | changes)
    )
    assert [f.code for f in ledger_of(recipe).stops] == [code]
    with pytest.raises(FinetuiError) as caught:
        Trainer(recipe)
    assert caught.value.code in ("dataset-nothing-learned", "dataset-answers-cut", "dataset-format")


def test_from_the_hub_only_the_tokenizer_is_fetched(
    tiny_model: Path, tiny_rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running() as hub:
        files = {p.name: p.read_bytes() for p in tiny_model.iterdir()}
        hub.add("models", "somebody/tiny", files | {"pytorch_model.bin": b"a pickle", "modeling.py": b"boom"})
        hub.add("models", "somebody/secret", files, gated=True)
        hub.add("datasets", "somebody/rows", {"train.jsonl": tiny_rows.read_bytes()})
        for name, value in {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        ledger = ledger_of(harness.recipe(Path("somebody/tiny"), Path("somebody/rows")))
        assert (ledger.train_rows, ledger.evaluation_rows) == (36, 4)
        fetched = {path.rsplit("/", 1)[-1] for _, path, _ in hub.requests}
        assert "tokenizer.json" in fetched
        assert not {"model.safetensors", "pytorch_model.bin", "modeling.py"} & fetched
        for model, rows, code in (
            ("somebody/secret", "somebody/rows", "hub-gated"),
            ("somebody/none", "somebody/rows", "hub-not-found"),
            ("somebody/tiny", "somebody/none", "hub-not-found"),
        ):
            inspector = Inspector.start(harness.recipe(Path(model), Path(rows)))
            try:
                error = until(inspector, lambda p: p.error).error
                assert error is not None and error.code == code
            finally:
                inspector.close()


def test_rows_of_any_size_are_taken(tiny_model: Path, tmp_path: Path) -> None:
    nasty = "\x00\ud800 [/] \x1b[31m"
    rows = [talk("q", "a"), talk("q" * 200_000, "a" * 200_000), talk(nasty, nasty), talk("z", "y")]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    inspector = Inspector.start(harness.recipe(tiny_model, data, evaluation_share=0.0))
    try:
        ledger = complete(inspector)
        assert ledger.read == 4 == ledger.kept + ledger.dropped_rows
        longest = inspector.jump("longest")
        assert longest == 1 and inspector.row(1).full_tokens > 400_000
        assert sum(len(span.text) for span in inspector.row(1).spans) < 110_000
        assert inspector.row(2).spans and inspector.row(3).number == 4
    finally:
        inspector.close()


def test_a_base_model_is_stopped_with_the_reason(tiny_base_model: Path, tmp_path: Path) -> None:
    ledger = ledger_of(harness.recipe(tiny_base_model, written(tmp_path / "rows.jsonl", MIXED)))
    assert [f.code for f in ledger.stops] == ["no-template"]
    assert ledger.stops[0].actions[0].key == "change-model"
