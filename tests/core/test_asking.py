"""A question to a process of its own: answered, too slow, cancelled, and left by whoever asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetui.core import asking
from tests.waiting import has_ended, until

PATIENCE = 60.0
SLEEPER = "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); open(sys.argv[1], 'w').write(f'{p.pid}'); time.sleep(600)"


def nothing() -> None:
    """Goes on."""


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-c", code, *words]


def test_the_answer_with_both_outputs_and_the_code() -> None:
    code = (
        "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('one\\nlast'); sys.exit(3)"
    )
    answer = asking.ask(python(code), b"x" * 2_000_000, os.environ, nothing, PATIENCE)
    assert answer.output == b"X" * 2_000_000
    assert (answer.last_words, answer.code) == ("last", 3)


def test_one_that_does_not_listen_answers_all_the_same() -> None:
    answer = asking.ask(python("print('no')"), b"x" * 2_000_000, os.environ, nothing, PATIENCE)
    assert answer.output == b"no\n" and answer.last_words == ""


def test_too_slow_and_cancelled_end_it_with_what_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"

    def stop() -> None:
        if note.exists() and note.read_text():
            raise KeyError("stop")

    with pytest.raises(KeyError):
        asking.ask(python(SLEEPER, str(note)), b"", os.environ, stop, PATIENCE)
    until(lambda: has_ended(int(note.read_text())))
    with pytest.raises(TimeoutError):
        asking.ask(python("import time; time.sleep(600)"), b"", os.environ, nothing, 0.3)


def test_it_ends_with_whoever_asked(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    asked = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    code = (
        "import os, sys; from finetui.core import asking; "
        f"asking.ask([sys.executable, '-c', {asked!r}], b'', os.environ, lambda: None, 600)"
    )
    asker = subprocess.Popen(python(code))
    until(lambda: note.exists() and note.read_text() or asker.poll() is not None)
    asker.kill()
    asker.wait()
    until(lambda: has_ended(int(note.read_text())))
