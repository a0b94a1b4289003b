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
    folders: Iterable[str] = LOGIND_CONFIGURATION,
    linger: str = "/var/lib/systemd/linger",
    cgroup: str = "/proc/self/cgroup",
) -> Check:
    """Whether systemd ends a user's processes, runs among them, when the user logs out.

    It ends the session's scope; what stands under the user's own manager (`user@….service`) lives on where lingering is on
    (logind.conf(5), KillUserProcesses). What is in neither, such as a container, is not touched.
    """
    if not kills_user_processes(folders):
        return Check("Log out", "ok", "runs outlive a log-out")
    try:
        place = Path(cgroup).read_text(encoding="utf-8", errors="replace")
    except OSError:
        place = ""
    own_manager = "/user@" in place
    if not own_manager and not re.search(r"/session-[^/]*\.scope", place):
        return Check("Log out", "ok", "runs outlive a log-out: this is no log-in session")
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or ""
    lingers = bool(user) and "/" not in user and (Path(linger) / user).exists()
    if own_manager and lingers:
        return Check("Log out", "ok", "runs outlive a log-out (lingering is on)")
    steps = [] if lingers else ["run `loginctl enable-linger` once"]
    steps += [] if own_manager else ["start finetui with: systemd-run --user --scope finetui"]
    fix = ", and ".join(steps)
    return Check(
        "Log out",
        "warn",
        "systemd ends your processes, runs too, when you log out",
        f"To let them go on, {fix}",
    )


def kills_user_processes(folders: Iterable[str] = LOGIND_CONFIGURATION) -> bool:
    """KillUserProcesses as logind reads it: the main file, then the drop-ins by name; the last word counts. Where none has
    a word, the default that it was built with stands in the main file as a comment."""
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
        stated = re.findall(r"^\s*KillUserProcesses\s*=\s*(\S*)", text, re.MULTILINE)
        built_in = re.findall(r"^#\s*KillUserProcesses=(\S+)", text, re.MULTILINE) if file in files else []
        for value in stated or built_in:
            answer = value.lower() in ("yes", "true", "on", "1", "y", "t")
    return answer
