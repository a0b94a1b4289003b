"""The demo's tokenizer by itself: the model's own files, without the model, and without waiting for it."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetui.core import paths
from finetui.core.dataset_inspect import Inspector
from finetui.core.errors import FinetuiError
from finetui.core.recipe import DatasetSection, Recipe
from finetui.core.worker import demo_model, demo_package, demo_tokenizer

from .harness import PATIENCE
from .inspecting import complete

FILES = ["chat_template.jinja", "tokenizer.json", "tokenizer_config.json"]


def test_it_is_the_models_tokenizer_byte_for_byte() -> None:
    alone, model = demo_tokenizer.prepare(), demo_model.prepare()
    assert sorted(p.name for p in alone.iterdir()) == sorted([*FILES, demo_tokenizer.MANIFEST])
    for name in FILES:
        assert (alone / name).read_bytes() == (model / name).read_bytes()


def test_it_is_made_once_and_again_when_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    folder = demo_tokenizer.prepare()
    made = (folder / "tokenizer.json").stat().st_mtime_ns
    assert demo_tokenizer.prepare() == folder
    assert (folder / "tokenizer.json").stat().st_mtime_ns == made
    whole = (folder / "tokenizer.json").read_bytes()
    os.truncate(folder / "tokenizer.json", 1000)
    (folder.parent / f".{folder.name}.x.part").mkdir()
    assert not demo_tokenizer.is_whole(folder)
    assert demo_tokenizer.prepare() == folder
    assert (folder / "tokenizer.json").read_bytes() == whole
    assert [p.name for p in folder.parent.iterdir() if p.is_dir()] == [folder.name]
    manifest = json.loads((folder / demo_tokenizer.MANIFEST).read_text())
    (folder / demo_tokenizer.MANIFEST).write_text(json.dumps(manifest | {"layout": 0}))
    assert not demo_tokenizer.is_whole(folder)


_PREPARE = (
    "import sys; from finetui.core.worker import demo_tokenizer; print('AT', demo_tokenizer.prepare(), "
    "*(name for name in ('torch', 'transformers', 'unsloth') if name in sys.modules), sep='|')"
)


def test_two_at_once_make_one_and_load_no_torch(tmp_path: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", _PREPARE],
            env={**os.environ, "FINETUI_HOME": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    folder = tmp_path / "cache" / "tokenizers" / paths.demo_tokenizer().name
    assert [process.communicate(timeout=PATIENCE)[0].strip() for process in both] == [f"AT|{folder}"] * 2
    assert demo_tokenizer.is_whole(folder)


@pytest.mark.parametrize("length", [0, 3, 20, 4000, 700_000])
def test_a_cut_package_is_a_card(tmp_path: Path, length: int) -> None:
    gguf, _ = demo_package.source(lambda _text: None)
    cut = tmp_path / "cut.gguf"
    with gguf.open("rb") as whole:
        cut.write_bytes(whole.read(length))
    with pytest.raises(FinetuiError) as caught:
        demo_tokenizer.write(cut, tmp_path)
    assert caught.value.code == "demo-package-damaged"
    assert "force-reinstall" in caught.value.fix


def test_the_inspector_builds_no_weights_and_waits_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process holds the lock under which the model is prepared, as a training that has just begun does."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    model = paths.demo_model()
    paths.private_dir(model.parent)
    lock = os.open(model.parent / f".{model.name}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        inspector = Inspector.start(Recipe(dataset=DatasetSection(row_limit=64)))
        try:
            ledger = complete(inspector)
            maps = Path(f"/proc/{inspector._process.pid}/maps").read_text()  # pyright: ignore[reportPrivateUsage]
        finally:
            inspector.close()
    finally:
        os.close(lock)
    assert ledger.kept and ledger.ends_trained == ledger.kept and not ledger.stops
    assert "libtorch" not in maps
    assert [p.name for p in model.parent.iterdir()] == [f".{model.name}.lock"]
