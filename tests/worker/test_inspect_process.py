"""The inspector's process: what it survives, what ends it, and what it never loads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetui.core import paths, recipe_file
from finetui.core.dataset_inspect import Inspector
from finetui.core.errors import FinetuiError
from tests import waiting

from . import harness, tiny
from .inspecting import MIXED, complete, ledger_of, talk, until, written

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
HUGE = "{{ 'x' * 90000000000 }}"
POWER = "{{ 7 ** 9 ** 9 ** 9 }}"


@pytest.mark.parametrize("attack", [ENDLESS, HUGE, POWER], ids=["endless", "huge", "power"])
def test_a_hostile_template_is_stopped(tmp_path: Path, attack: str) -> None:
    template = "{% if messages | length > 2 %}" + attack + "{% endif %}" + tiny.CHAT_TEMPLATE
    recipe = harness.recipe(
        tiny.make(tmp_path / "model", template),
        written(tmp_path / "rows.jsonl", [talk("a", "b"), talk("a", "b", "c", "d")]),
    )
    inspector = Inspector.start(recipe, patience_seconds=3)
    inspector._silent_seconds = 8  # pyright: ignore[reportPrivateUsage]
    try:
        now = until(inspector, lambda p: p.error or (p.ledger and p.ledger.complete))
        if now.error is None:  # refused without harm: the row is left out
            assert now.ledger is not None and now.ledger.dropped_rows == 1
        else:
            assert now.error.code in ("template-stuck", "inspect-stuck", "inspect-memory", "inspect-failed")
            assert now.error.what and now.error.fix
    finally:
        pid = inspector._process.pid  # pyright: ignore[reportPrivateUsage]
        inspector.close()
    waiting.until(lambda: waiting.has_ended(pid), "for its end")


def many(path: Path, count: int) -> Path:
    line = json.dumps(talk("word " * 60, "answer " * 60)) + "\n"
    path.write_text(line * count, encoding="utf-8")
    return path


def test_it_is_paused_cancelled_and_closed(tiny_model: Path, tmp_path: Path) -> None:
    recipe = harness.recipe(tiny_model, many(tmp_path / "rows.jsonl", 60_000), max_length=2000)
    inspector = Inspector.start(recipe)
    until(inspector, lambda p: p.ready)
    inspector.pause()
    assert inspector.row(3).trained_tokens > 0
    with pytest.raises(FinetuiError) as caught:
        inspector.write_clean(tmp_path / "clean.jsonl")
    assert caught.value.code == "not-complete"
    inspector.pause(False)
    inspector.cancel()
    now = until(inspector, lambda p: inspector._done)  # pyright: ignore[reportPrivateUsage]
    assert now.ledger is not None and not now.ledger.complete and now.error is None
    assert 0 < now.ledger.read < 60_000 and now.ledger.read == now.ledger.kept
    assert inspector.row(0).spans
    process = inspector._process  # pyright: ignore[reportPrivateUsage]
    inspector.close()
    inspector.close()
    assert process.wait(harness.PATIENCE) is not None
    with pytest.raises(FinetuiError):
        inspector.row(0)
    assert not list((paths.cache() / "ledgers").glob(f".work-*-{process.pid}-*"))


def test_it_ends_with_the_wizard_that_started_it(tiny_model: Path, tmp_path: Path) -> None:
    recipe = harness.recipe(tiny_model, many(tmp_path / "rows.jsonl", 60_000), max_length=2000)
    recipe_file.save(recipe, tmp_path / "recipe.yaml")
    code = (
        "import sys, time; from pathlib import Path; from finetui.core import recipe_file; "
        "from finetui.core.dataset_inspect import Inspector; "
        "inspector = Inspector.start(recipe_file.load(Path(sys.argv[1]))); "
        "print(inspector._process.pid, flush=True); time.sleep(600)"
    )
    wizard = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "recipe.yaml")], stdout=subprocess.PIPE
    )
    assert wizard.stdout is not None
    pid = int(wizard.stdout.readline())
    wizard.kill()
    wizard.communicate()
    waiting.until(lambda: waiting.has_ended(pid), "for its end")


@pytest.mark.parametrize("where", ["ledgers", "file"])
def test_without_a_place_for_its_work_it_is_a_card(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A cache that takes no files, as on a disk that is full or another's."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    paths.private_dir(paths.cache())
    if where == "ledgers":
        (paths.cache() / "ledgers").write_text("in the way")
    inspector = Inspector.start(harness.recipe(tiny_model, written(tmp_path / "rows.jsonl", MIXED)))
    try:
        if where == "ledgers":
            error = until(inspector, lambda p: p.error).error
            assert error is not None and error.what and error.fix and "Traceback" not in error.why
        else:
            complete(inspector)
            with pytest.raises(FinetuiError) as caught:
                inspector.write_clean(tmp_path / "no such folder" / "clean.jsonl")
            assert caught.value.fix and "Traceback" not in caught.value.why
    finally:
        inspector.close()


def test_a_killed_process_is_a_card(tiny_model: Path, tmp_path: Path) -> None:
    recipe = harness.recipe(tiny_model, many(tmp_path / "rows.jsonl", 60_000), max_length=2000)
    inspector = Inspector.start(recipe)
    until(inspector, lambda p: p.ready)
    process = inspector._process  # pyright: ignore[reportPrivateUsage]
    os.killpg(process.pid, signal.SIGKILL)
    error = until(inspector, lambda p: p.error).error
    assert error is not None and error.code == "inspect-failed" and "memory" in error.why
    with pytest.raises(FinetuiError):
        inspector.row(0)
    inspector.close()
    ledger_of(harness.recipe(tiny_model, written(tmp_path / "few.jsonl", MIXED)))
    assert not list((paths.cache() / "ledgers").glob(f".work-*-{process.pid}-*"))


@pytest.mark.parametrize(
    ("source", "code"),
    [("/no/such/folder", "model-missing"), ("who/knows", "hub-offline"), ("", "model-no-tokenizer")],
)
def test_a_model_without_a_tokenizer_is_a_card(tmp_path: Path, source: str, code: str) -> None:
    recipe = harness.recipe(Path(source or tmp_path), written(tmp_path / "rows.jsonl", MIXED))
    if not source.startswith("/"):
        model = recipe.model.model_copy(update={"source": source or str(tmp_path)})
        recipe = recipe.model_copy(update={"model": model})
    inspector = Inspector.start(recipe)
    try:
        error = until(inspector, lambda p: p.error).error
        assert error is not None and error.code == code and error.fix
    finally:
        inspector.close()


def test_torch_is_not_imported(tiny_model: Path, tmp_path: Path) -> None:
    inspector = Inspector.start(harness.recipe(tiny_model, written(tmp_path / "rows.jsonl", MIXED)))
    try:
        complete(inspector)
        maps = Path(f"/proc/{inspector._process.pid}/maps").read_text()  # pyright: ignore[reportPrivateUsage]
        assert "libtorch" not in maps and "tokenizers" in maps
    finally:
        inspector.close()
