"""Terminals of every kind, and some that misbehave."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from textual.scrollbar import ScrollBarRender

from finetui.core.runs import queue, store
from finetui.tui.ascii import to_ascii
from finetui.tui.commands import exits
from tests.tui.terminal import Terminal

COMMAND = "import sys; from finetui.tui.__main__ import main; raise SystemExit(main(sys.argv[1:]))"
WIZARD = [
    ("xterm-256color", "C.UTF-8", (40, 10)),
    ("xterm-256color", "C.UTF-8", (20, 5)),
    ("xterm", "C", (80, 24)),
    ("vt100", "en_US.ISO-8859-1", (80, 24)),
    ("linux", "C.UTF-8", (120, 36)),
    ("never-heard-of", "C.UTF-8", (200, 60)),
]


@pytest.mark.parametrize(("term", "locale", "size"), WIZARD)
def test_the_wizard_opens_and_leaves_on_any_terminal(
    tmp_path: Path, term: str, locale: str, size: tuple[int, int]
) -> None:
    terminal = Terminal(tmp_path, COMMAND, size, {"TERM": term, "LC_ALL": locale, "PYTHONUTF8": "0"})
    try:
        terminal.read_until(b"\x1b[?1049h")
        terminal.read_until(b"q" if size[1] < 10 else b"Quit")
        os.write(terminal.master, b"q")
        assert terminal.end() == 0
        assert b"Traceback" not in terminal.output
        assert b"\x1b[?1049l" in terminal.output and b"\x1b[?25h" in terminal.output
        if locale != "C.UTF-8" or term == "linux":
            assert terminal.output.isascii()
    finally:
        terminal.process.kill()
        os.close(terminal.master)


def test_a_scroll_bar_in_ascii_has_no_question_marks() -> None:
    bars = [*ScrollBarRender.VERTICAL_BARS, *ScrollBarRender.HORIZONTAL_BARS]
    assert "?" not in "".join(map(to_ascii, bars))


def test_a_dumb_terminal_gets_plain_words(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, COMMAND, environment={"TERM": "dumb"})
    try:
        terminal.end()
        assert b"\x1b" not in terminal.output and b"Traceback" not in terminal.output
        assert b"TERM is dumb" in terminal.output
    finally:
        terminal.process.kill()
        os.close(terminal.master)


def test_a_storm_of_sizes_is_weathered(tmp_path: Path) -> None:
    terminal, sizes = Terminal(tmp_path), random.Random(7)
    try:
        terminal.read_until(b"Try the demo")
        os.write(terminal.master, b"\r")
        terminal.read_until(b"Precision")
        for _ in range(60):
            terminal.resize(
                sizes.choice((1, 2, 10, 40, 80, 120, 300)), sizes.choice((1, 2, 5, 10, 24, 36, 100))
            )
            terminal.process.send_signal(signal.SIGWINCH)
            os.write(terminal.master, sizes.choice((b"\t", b"\x0e", b"\x1b[A", b"\x1b[B", b"?", b"\x1b")))
            terminal.drain(0.02)
        terminal.resize(80, 24)
        terminal.output = b""
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.read_until(b"finetui")  # it still paints
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.end() == 128 + signal.SIGTERM
        assert b"Traceback" not in terminal.output and b"\x1b[?1049l" in terminal.output
    finally:
        terminal.process.kill()
        os.close(terminal.master)


def test_a_disk_that_takes_nothing_is_said_by_any_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is changed while no file may grow (EFBIG): a card, no fault of ours, and the queue as it was."""
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    runs = [store.create("one"), store.create("two")]
    for run in runs:
        run.recipe.write_text("name: waits\n")
    with queue.changing() as places:
        places[:] = [queue.Place(str(run.path)) for run in runs]
    before = queue.places()
    for words in (["queue", "move", "two", "1"], ["queue", "remove", "one"]):
        limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); {COMMAND}"
        done = subprocess.run(
            [sys.executable, "-c", limited, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == exits.REFUSED
        assert "The disk did not take it." in done.stderr and "File too large" in done.stderr
    assert queue.places() == before
