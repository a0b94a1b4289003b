"""The doctor's findings about the terminal, and about what outlives it."""

from __future__ import annotations

import locale
import os
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from .check import Check
from .text import one_line

LOGIND_CONFIGURATION = ("/usr/lib/systemd", "/usr/local/lib/systemd", "/run/systemd", "/etc/systemd")
"""Folders of logind.conf and logind.conf.d, the later ones counting more."""


def terminal_check() -> Check:
    if not sys.stdout.isatty():
        return Check("Terminal", "ok", "none here: runs go on with plain lines")
    size = shutil.get_terminal_size()
    encoding = (getattr(sys.stdout, "encoding", "") or locale.getpreferredencoding(False)).lower()
    term = one_line(os.environ.get("TERM", ""), 40)
    colours = "no colours (NO_COLOR)" if os.environ.get("NO_COLOR") else f"{colour_words(term)}"
    words = f"{size.columns}×{size.lines}, {encoding}, {colours}, TERM={term or '(unset)'}"
    if term in ("", "dumb"):
        return Check(
            "Terminal", "warn", words, "The wizard needs a real terminal; `finetui train` works in any."
        )
    if size.columns < 80 or size.lines < 24:
        return Check("Terminal", "warn", words, "Make it at least 80×24.")
    if "utf" not in encoding:
        return Check(
            "Terminal", "warn", words, "Set LANG=C.UTF-8 for braille charts; they are plain otherwise."
        )
    return Check("Terminal", "ok", words)


def colour_words(term: str) -> str:
    """How many colours the environment promises."""
    if os.environ.get("COLORTERM", "").lower() in ("truecolor", "24bit"):
        return "16 million colours"
    return "256 colours" if "256" in term else "16 colours"


def multiplexer_check() -> Check:
    inside = next(
        (name for name, variable in (("tmux", "TMUX"), ("screen", "STY")) if os.environ.get(variable)), None
    )
    if inside:
        return Check("Detach", "ok", f"inside {inside}: the wizard itself survives a lost connection too")
    there = [name for name in ("tmux", "screen") if shutil.which(name)]
    detail = "runs go on when the wizard or the connection ends"
    if os.environ.get("SSH_CONNECTION") and there:
        return Check("Detach", "ok", f"{detail}; {there[0]} would keep the wizard as well")
    return Check("Detach", "ok", detail)


def log_out_check(
    folders: Iterable[str] = LOGIND_CONFIGURATION, linger: str = "/var/lib/systemd/linger"
) -> Check:
    """Whether systemd ends a user's processes, runs among them, when the user logs out."""
    if not kills_user_processes(folders):
        return Check("Log out", "ok", "runs outlive a log-out")
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or ""
    if user and "/" not in user and (Path(linger) / user).exists():
        return Check("Log out", "ok", "runs outlive a log-out (lingering is on)")
    fix = "Run `loginctl enable-linger` once."
    return Check("Log out", "warn", "systemd ends your processes, runs too, when you log out", fix)


def kills_user_processes(folders: Iterable[str] = LOGIND_CONFIGURATION) -> bool:
    """KillUserProcesses as logind reads it: the main file, then the drop-ins by name; the last word counts."""
    files: list[Path] = []
    drop_ins: dict[str, Path] = {}
    for folder in folders:
        main = Path(folder) / "logind.conf"
        if main.is_file():
            files = [main]
        try:
            drop_ins.update({p.name: p for p in (Path(folder) / "logind.conf.d").glob("*.conf")})
        except OSError:
            continue
    answer = False
    for file in [*files, *(drop_ins[name] for name in sorted(drop_ins))]:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for value in re.findall(r"^\s*KillUserProcesses\s*=\s*(\S*)", text, re.MULTILINE):
            answer = value.lower() in ("yes", "true", "on", "1", "y", "t")
    return answer
