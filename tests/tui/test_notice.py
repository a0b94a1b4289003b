"""Words to the terminal."""

from __future__ import annotations

import pytest

from finetui.tui.notice import sequence

NASTY = "\x1b]52;c;ZWNobw==\x07\x1b\\ a;b\n\x9b2Jc"


@pytest.mark.parametrize(
    ("environment", "starts", "ends"),
    [
        ({"TERM": "xterm-256color"}, "\a\x1b]9;", "\x1b\\"),
        ({"TERM": "foot"}, "\a\x1b]777;notify;", "\x1b\\"),
        ({"TERM": "xterm", "VTE_VERSION": "7006"}, "\a\x1b]777;notify;", "\x1b\\"),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/x,1,0"}, "\a\x1bPtmux;\x1b\x1b]9;", "\x1b\x1b\\\x1b\\"),
        ({"TERM": "linux"}, "\a", "\a"),
        ({"TERM": "xterm", "FINETUI_NOTIFY_TERMINAL": "bell"}, "\a", "\a"),
        ({"TERM": "xterm", "FINETUI_NOTIFY_TERMINAL": "osc777"}, "\a\x1b]777;notify;", "\x1b\\"),
    ],
)
def test_each_terminal_gets_its_own(environment: dict[str, str], starts: str, ends: str) -> None:
    told = sequence(NASTY, NASTY, environment)
    assert told.startswith(starts) and told.endswith(ends)
    inside = told[len(starts) : len(told) - len(ends)]
    assert not any(bad in inside for bad in "\x1b\x07\x9b\n") and "]52" not in inside
    assert inside.count(";") == (1 if "777" in starts else 0)


def test_it_can_be_switched_off() -> None:
    assert sequence("a", "b", {"TERM": "xterm", "FINETUI_NOTIFY_TERMINAL": "off"}) == ""
