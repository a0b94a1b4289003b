"""Reads what pip prints: how far it is, and, when it fails, why, in one line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_COLLECTING = re.compile(r"^(?:Collecting|Requirement already satisfied:|Processing) (\S+)")
_DOWNLOADING = re.compile(r"^\s*(?:Downloading|Using cached) (\S+) \(([\d.]+ [kMG]?B)\)")
_INSTALLING = re.compile(r"^Installing collected packages: (.+)$")

_DISK = (
    "No space left on device",
    "[Errno 28]",
    "Disk quota exceeded",
    "[Errno 122]",
    "File too large",
    "[Errno 27]",
)
_CERTIFICATE = ("CERTIFICATE_VERIFY_FAILED", "SSLCertVerificationError")
_NETWORK = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "Read timed out",
    "Connection refused",
    "Connection reset",
    "Connection aborted",
    "Failed to establish a new connection",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "Max retries exceeded",
    "ProxyError",
    "IncompleteRead",
    "RemoteDisconnected",
)
# The second form is what pip says of the same thing where its configuration names a constraints file.
_NOT_OFFERED = re.compile(r"(?:No matching distribution found for|Cannot install) (\S+)")
_SERVER = re.compile(r"HTTP error (\d{3})|(\d{3}) (?:Client|Server) Error")


@dataclass
class Progress:
    """How far one `pip install` is, fed with the lines that it prints.

    `found` counts the packages that pip has looked up, `installing` those that it then writes to disk
    (0 until it starts to), and `download` is the newest file with its size ("torch-2.13.0….whl, 190.3 MB").
    """

    found: int = 0
    installing: int = 0
    download: str = ""
    lines: list[str] = field(default_factory=list)

    def feed(self, line: str) -> None:
        """Take in one line of pip's output."""
        self.lines.append(line)
        if _COLLECTING.match(line):
            self.found += 1
        elif match := _DOWNLOADING.match(line):
            name = match[1].rsplit("/", 1)[-1].split("-", 1)[0]
            self.download = f"{name}, {match[2]}"
        elif match := _INSTALLING.match(line):
            self.installing = match[1].count(",") + 1
            self.download = ""


def not_offered(lines: list[str], requirement: str) -> bool:
    """Whether pip reached its index and that index simply has no such release."""
    missing = any((match := _NOT_OFFERED.search(line)) and match[1] == requirement for line in lines)
    return missing and not any(word in line for line in lines for word in (*_NETWORK, *_CERTIFICATE))


def cause(lines: list[str], status: int = 1) -> str:
    """One sentence that says why pip failed, and what to do, from its output and exit status."""
    text = "\n".join(lines)
    if any(word in text for word in _DISK):
        return "the disk is full (or a quota is used up): free some space and run the same command again"
    if any(word in text for word in _CERTIFICATE):
        return "pip does not trust the certificate of its package index: set PIP_CERT to your network's certificate file"
    if any(word in text for word in _NETWORK):
        return "no network: pip could not reach its package index. Check the connection and any proxy, then run it again"
    if match := _SERVER.search(text):
        return f"the package index answered with error {match[1] or match[2]}: try again later"
    if (match := _NOT_OFFERED.search(text)) and "(from versions: none)" in text:
        return (
            f"pip found no release of {match[1]} at all: there is no network, or its index does not carry it"
        )
    if match:
        return f"pip's index has no {match[1]} for this Python and machine: try another Python (PYTHON=…) or index"
    if any(word in text for word in ("Permission denied", "[Errno 13]", "Read-only file system")):
        return "no permission to write here: check who owns this folder and .venv"
    if status in (-9, 137):
        return "pip was killed, most likely because memory ran out: close something and run it again"
    errors = [line.strip() for line in lines if line.startswith("ERROR:")]
    last = (
        errors[-1]
        if errors
        else next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    )
    return f"the install failed ({last.removeprefix('ERROR:').strip()[:160]})"


def venv_cause(lines: list[str], status: int, minor: int) -> str:
    """One sentence that says why `python3.MINOR -m venv` failed, and what to do."""
    if any("No module named" in line or "ensurepip is not" in line for line in lines):
        return (
            f"this Python 3.{minor} comes without its venv module: install it (Debian and Ubuntu: "
            f"apt install python3.{minor}-venv), or name another Python (PYTHON=…)"
        )
    return cause(lines, status)
