"""Untrusted text: nothing that steers a terminal gets through, and tokens never do."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetui.core import atomic, paths, secrets, text

STEERING = set(range(0x09)) | set(range(0x0B, 0x20)) | set(range(0x7F, 0xA0)) | set(range(0x202A, 0x202F))
STEERING |= set(range(0x2066, 0x206A)) | {0x200E, 0x200F, 0x061C} | set(range(0xD800, 0xE000))


@given(st.text(st.characters(codec=None) | st.sampled_from("\x1b\x9b\x9d[]()m;0\x07\\")))
def test_nothing_that_steers_a_terminal_stays(raw: str) -> None:
    assert not any(ord(c) in STEERING for c in text.clean(raw))


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]52;c;c2VjcmV0\x07copied", "copied"),
        ("\x1b]8;;x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\u202eb", "a\ufffdb"),
        ("one\r\ntwo\tthree", "one\ntwo\tthree"),
        ("[@click=app.quit]x[/]", "[@click=app.quit]x[/]"),
    ],
)
def test_known_attacks(raw: str, safe: str) -> None:
    assert text.clean(raw) == safe


@given(st.text(), st.integers(1, 60))
def test_cuts_keep_to_their_width(raw: str, width: int) -> None:
    assert len(text.middle(raw, width)) <= width
    assert len(text.one_line(raw, width)) <= width
    assert "\n" not in text.one_line(raw, width)


def test_a_long_line_is_cut() -> None:
    assert len(text.clean("x" * 10_000_000)) == 20_000


def test_words_for_sizes() -> None:
    assert text.bytes_words(93 * 1024**2) == "93.0 MiB"
    assert text.count_words(134_515_008) == "135 M"
    assert [text.counted(n, "row") for n in (0, 1, 2_000)] == ["0 rows", "1 row", "2,000 rows"]
    assert [text.counted(n, "epoch") for n in (1.0, 1.5)] == ["1 epoch", "1.5 epochs"]
    assert text.duration_words(200) == "3 min 20 s"
    assert text.duration_words(7500) == "2 h 05 min"


def test_tokens_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "my-own-odd-token")
    hidden = secrets.redact("a my-own-odd-token b hf_abcdefghijkl c")
    assert "odd-token" not in hidden and "hf_abc" not in hidden


def test_a_file_is_written_whole_and_private(tmp_path: Path) -> None:
    target = tmp_path / "file"
    atomic.write_text(target, "old")
    with pytest.raises(TypeError):
        atomic.write_bytes(target, None)  # type: ignore[arg-type]
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    folder = paths.private_dir(tmp_path / "a" / "b")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
