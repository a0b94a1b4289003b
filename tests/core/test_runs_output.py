"""worker.log read by pieces, and the listing of a run's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetui.core.runs import files, output
from finetui.core.runs.store import RunFolder


def _log(folder: Path, lines: int) -> Path:
    log = folder / "worker.log"
    log.write_text("".join(f"line {n} {'x' * 50}\n" for n in range(lines)))
    return log


def test_the_pieces_from_end_to_start_are_the_file(tmp_path: Path) -> None:
    log = _log(tmp_path, 5000)
    told: list[str] = []
    piece = output.before(log)
    assert piece.end == piece.size == log.stat().st_size and piece.end - piece.start <= output.PIECE_BYTES
    while True:
        told[:0] = piece.lines
        if piece.start == 0:
            break
        piece = output.before(log, piece.start)
    assert told == log.read_text().splitlines()


def test_the_pieces_from_start_to_end_are_the_file(tmp_path: Path) -> None:
    log = _log(tmp_path, 5000)
    told: list[str] = []
    at = 0
    while at < log.stat().st_size:
        piece = output.after(log, at)
        assert piece.start == at
        told += piece.lines
        at = piece.end
    assert told == log.read_text().splitlines()


def test_a_file_that_is_not_there_or_is_one_endless_line(tmp_path: Path) -> None:
    assert output.before(tmp_path / "none") == output.Piece()
    log = tmp_path / "worker.log"
    log.write_bytes(b"a" * 300_000)
    piece = output.before(log)
    assert piece.end == 300_000 and len(piece.lines) == 1 and len(piece.lines[0]) <= 4000
    assert output.before(log, piece.start).end == piece.start  # and it can be left


def test_words_are_found_far_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "BLOCK_BYTES", 1000)  # the words lie across blocks, too
    log = tmp_path / "worker.log"
    filler = "".join(f"nothing {n}\n" for n in range(2000))
    log.write_text(f"{filler}Needle ONE\n{filler}needle two\n{filler}")
    size = log.stat().st_size
    second = output.find_before(log, "NEEDLE", size)
    assert second is not None and output.before(log, second).lines[-1] == "needle two"
    first = output.find_before(log, "needle", output.before(log, second).end - len("needle two\n"))
    assert first is not None and output.before(log, first).lines[-1] == "Needle ONE"
    for cut in range(990, 1010):  # wherever a block ends
        log.write_bytes(b"." * cut + b"needle\n" + b"." * 2500)
        assert output.find_before(log, "needle", cut + 2507) == cut + 7
    assert output.find_before(log, "haystack", size) is None
    assert output.find_before(log, "needle", size, lambda: True) is None


def test_what_is_shown_is_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canaryCANARYcanary")
    log = tmp_path / "worker.log"
    log.write_bytes(
        b"  5%\r 60%\r100%\n\x1b[2J\x1b]0;title\x07hidden\x00\n\xff\xfe\ntoken hf_canaryCANARYcanary\n"
    )
    lines = output.before(log).lines
    assert lines[0] == "100%" and lines[1] == "hidden\ufffd"
    assert "canary" not in "".join(lines) and "\x1b" not in "".join(lines)


def test_levels() -> None:
    lines = """Loading weights
/x/y.py:3: UserWarning: slow
WARNING: odd
Traceback (most recent call last):
  File "a.py", line 1
ValueError: no
Going on, without errors
torch.OutOfMemoryError: CUDA out of memory""".split("\n")
    assert output.levels(lines) == ["info", "warning", "warning", *["error"] * 3, "info", "error"]


def test_the_files_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("x" * 10)
    inner = tmp_path / "checkpoints" / "checkpoint-5"
    inner.mkdir(parents=True)
    (inner / "a").write_bytes(b"1" * 100)
    (inner / "b").write_bytes(b"1" * 50)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    found = {entry.name: entry for entry in files.listing(RunFolder(tmp_path))}
    assert set(found) == {"adapter", "checkpoints/checkpoint-5", "loop", "recipe.yaml"}
    checkpoint = found["checkpoints/checkpoint-5"]
    assert (checkpoint.bytes, checkpoint.files, checkpoint.folder) == (150, 2, True)
    assert found["recipe.yaml"].bytes == 10 and not found["loop"].folder
    assert files.listing(RunFolder(tmp_path / "gone")) == []
