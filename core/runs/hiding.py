"""Text with what is private taken out: tokens, whatever stands in the rows too, paths of this machine, and names of people.

Rows may be many, and what is to be hidden in is short: so the short text is indexed, and the rows are read past it.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from .. import paths, secrets

LEFT_OUT = "‹left out›"

SHARED_CHARACTERS = 16
"""A stretch of so many characters that stands in a private text too is hidden. Shorter ones are common words; they are
hidden where they are all of a private text."""
_WINDOW = SHARED_CHARACTERS // 2
LEAST_CHARACTERS = 4
"""Private texts shorter than this (`yes`, `A`) say nothing, and would blot out half of every text."""

_QUOTED = re.compile(r"'[^'\n]{1,2000}'|\"[^\"\n]{1,2000}\"|“[^”\n]{1,2000}”|`[^`\n]{1,2000}`")
_HARMLESS = re.compile(
    r"[A-Za-z_][A-Za-z_.]{0,60}|[-+]?[\d.,]+(?:e[-+]?\d+)?|‹.*›.*|<[a-z]+>|…/.*|.{0,2}", re.S
)
_FOLDER = r"(?<![\w.:/‹…])(?:~|/[\w.@+-]+(?=/))"
_BLANK = r"\ (?=(?:[^\s'\"/]+\ ){0,3}[^\s'\"/]+(?:/|\.\w{1,8}\b))"
"""A blank that may belong to a path: one of the next words goes on with `/`, or ends like a file."""
_REST = rf"(?:/(?:[^\s'\"`,;:()\[\]{{}}<>|“”]|{_BLANK})*)?"
_OF_PROGRAMS = re.compile(r".*/(site-packages|dist-packages|python3\.\d+|finetui)/")
_SYSTEM = ("/usr/", "/proc/", "/sys/", "/dev/", "/lib", "/etc/", "/bin/", "/sbin/")


def texts_in(value: object) -> Iterable[str]:
    """Every text in a row, however deep, a line at a time."""
    if isinstance(value, str):
        yield from (line.strip() for line in value.splitlines())
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from texts_in(inner)


def without(texts: Iterable[str], private: Iterable[str], seconds: float) -> tuple[dict[str, str], bool]:
    """Each of `texts` with what it shares with the `private` lines hidden; and whether all of these were gone through in
    `seconds`."""
    pieces = list(dict.fromkeys(texts))
    whole = "\n".join(pieces)
    windows: dict[str, list[int]] = {}
    heads: dict[str, list[int]] = {}
    for at in range(len(whole)):
        window = whole[at : at + _WINDOW]
        if len(set(window)) > 2:  # not the blanks and the rules of a table
            windows.setdefault(window, []).append(at)
        heads.setdefault(whole[at : at + LEAST_CHARACTERS], []).append(at)
    hidden = bytearray(len(whole))
    end, finished = time.monotonic() + seconds, True
    seen: set[int] = set()
    for number, line in enumerate(private):
        if number % 512 == 0 and time.monotonic() > end:
            finished = False
            break
        if hash(line) in seen:  # rows often begin alike
            continue
        seen.add(hash(line))
        if LEAST_CHARACTERS <= len(line) < SHARED_CHARACTERS:
            for at in heads.get(line[:LEAST_CHARACTERS], ()):
                stop = at + len(line)
                if whole.startswith(line, at) and not _inside_word(whole, at, stop):
                    hidden[at:stop] = b"\1" * len(line)
        for start in range(0, len(line) - _WINDOW + 1, _WINDOW) if len(line) >= SHARED_CHARACTERS else ():
            for at in windows.get(line[start : start + _WINDOW], ()):
                _hide_shared(whole, at, line, start, hidden)
    found: dict[str, str] = {}
    at = 0
    for piece in pieces:
        marks = hidden[at : at + len(piece)]
        found[piece] = _blotted(piece, marks) if any(marks) else piece
        at += len(piece) + 1
    return found, finished


def _inside_word(text: str, start: int, stop: int) -> bool:
    return text[max(0, start - 1) : start].isalnum() or text[stop : stop + 1].isalnum()


def _hide_shared(text: str, at: int, line: str, start: int, hidden: bytearray) -> None:
    """Marks the longest stretch around `at` that `text` shares with `line` around `start`, where it is long enough."""
    left = right = 0
    while at - left > 0 and start - left > 0 and text[at - left - 1] == line[start - left - 1]:
        left += 1
    while at + right < len(text) and start + right < len(line) and text[at + right] == line[start + right]:
        right += 1
    if left + right >= SHARED_CHARACTERS:
        hidden[at - left : at + right] = b"\1" * (left + right)


def _blotted(piece: str, marks: bytearray) -> str:
    parts: list[str] = []
    at = 0
    while at < len(piece):
        stop = next((n for n in range(at, len(piece)) if marks[n] != marks[at]), len(piece))
        parts.append(LEFT_OUT if marks[at] else piece[at:stop])
        at = stop
    return "".join(parts)


class Names:
    """Takes out what tells of this machine and its people: tokens, paths, the user, the host, and `names` besides."""

    def __init__(self, names: Iterable[tuple[str, str]] = ()) -> None:
        """`names` are (text, what stands in its place)."""
        known = [
            *names,
            (str(paths.runs()), "‹runs›"),
            (str(paths.data()), "‹data›"),
            (str(Path.cwd()), "‹here›"),
        ]
        known += [(str(paths.cache()), "‹cache›")]
        known += [(value, "‹home›") for value in {str(Path.home()), os.environ.get("HOME", "")}]
        known += [
            (os.environ[name], f"‹{name}›")
            for name in ("FINETUI_HOME", "HF_HOME", "HF_HUB_CACHE", "UNSLOTH_LLAMA_CPP_PATH")
            if os.environ.get(name)
        ]
        known += [
            (value, secrets.HIDDEN)
            for name, value in os.environ.items()
            if secrets.is_secret(name) and len(value) >= 6 and not value.startswith("/")
        ]
        known = sorted((pair for pair in known if len(pair[0]) > 2), key=lambda pair: -len(pair[0]))
        self._literals = [pair for pair in known if not pair[0].startswith("/")]
        self._roots = {text.rstrip("/"): instead for text, instead in known if text.startswith("/")}
        roots = "|".join(map(re.escape, self._roots))
        self._path = re.compile(rf"(?:(?P<root>{roots})(?![\w-])|{_FOLDER}){_REST}")
        words = {word for word in _people() if len(word) > 1 and word != "root"}
        self._words = re.compile(
            "|".join(
                rf"(?<![^\W_]){re.escape(word)}(?![^\W_])" for word in sorted(words, key=len, reverse=True)
            )
            or r"(?!)",
            re.I,
        )

    def hide(self, text: str, *, quoted: bool = True) -> str:
        """`text` without them; with `quoted`, without what it quotes either, unless that is a plain name or a number."""
        text = secrets.redact(text)
        for literal, instead in self._literals:
            text = text.replace(literal, instead)
        text = self._words.sub("‹name›", self._path.sub(self._shortened, text))
        return _QUOTED.sub(_unquoted, text) if quoted else text

    def _shortened(self, match: re.Match[str]) -> str:
        """A path by what it is, and the end of its name."""
        path, root = match[0], match["root"]
        if program := _OF_PROGRAMS.match(path):
            return f"…/{program[1]}/{path[program.end() :]}"
        if root is None and path.startswith(_SYSTEM):
            return path
        suffix = Path(path).suffix if path != root else ""
        known = self._roots[root] if root is not None else "‹path›"
        return known + (suffix if re.fullmatch(r"\.\w{1,12}", suffix) else "")


def _people() -> set[str]:
    found = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER", "HOSTNAME")}
    found |= {socket.gethostname(), socket.gethostname().partition(".")[0], Path.home().name}
    try:
        found.add(getpass.getuser())
    except (OSError, KeyError):  # a container's user without a name
        pass
    return found


def _unquoted(match: re.Match[str]) -> str:
    inner = match[0][1:-1]
    return match[0] if _HARMLESS.fullmatch(inner) else f"{match[0][0]}{LEFT_OUT}{match[0][-1]}"
