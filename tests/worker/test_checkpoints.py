"""A checkpoint counts only while every file is as it was sealed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from finetui.core.runs import checkpoints

FILES = (
    "adapter_model.safetensors",
    "optimizer.pt",
    "trainer_state.json",
    "tokenizer.json",
    "adapter_config.json",
)


def make(folder: Path, step: int, sealed: bool = True) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    for name in FILES:
        (checkpoint / name).write_text(f"{name} at {step}")
    if sealed:
        checkpoints.seal(checkpoint)
    return checkpoint


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [*FILES, checkpoints.SEAL])
@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
def test_every_harm_to_every_file_is_seen(tmp_path: Path, name: str, harm: Callable[[Path], None]) -> None:
    older, newer = make(tmp_path, 10), make(tmp_path, 20)
    assert checkpoints.choose(tmp_path) == (newer, [])
    harm(newer / name)
    chosen, damaged = checkpoints.choose(tmp_path)
    assert chosen == older
    assert [path for path, _reason in damaged] == [newer] and damaged[0][1]
    checkpoints.discard([path for path, _reason in damaged])
    assert checkpoints.newest_first(tmp_path) == [older]


def test_one_that_was_never_finished_is_none(tmp_path: Path) -> None:
    make(tmp_path, 10, sealed=False)
    (tmp_path / "checkpoint-x").mkdir()
    (tmp_path / "README.md").touch()
    chosen, damaged = checkpoints.choose(tmp_path)
    assert chosen is None and [reason for _path, reason in damaged] == ["it was never finished"]
    assert checkpoints.choose(tmp_path / "nowhere") == (None, [])


def test_steps_are_numbers_not_words(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        make(tmp_path, step)
    assert [checkpoints.step_of(path) for path in checkpoints.newest_first(tmp_path)] == [100, 20, 9]
