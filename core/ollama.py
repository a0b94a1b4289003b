"""A GGUF of a run handed to Ollama: `ollama create` where Ollama is here, else the commands to do it elsewhere.

Ollama is somebody else's program: it is asked over its own command line, and over its API on loopback for what it has.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from . import leaving, recipe_file, secrets
from .asking import tied
from .errors import FinetuiError
from .export import NOT_IN_OLLAMA, begins_otherwise
from .runs.store import RunFolder
from .text import one_line

OLDEST: Final = (0, 2, 6)
"""The first version that speaks to the model as our Modelfile says. From the tags of github.com/ollama/ollama: a template may go
through `.Messages` since v0.2.2 (template/template.go), the chat gives it the Modelfile's SYSTEM since v0.2.5, and no empty
system turn where there is none since v0.2.6 (server/routes.go, #5717). v0.30.0 and later may take the template in the GGUF
instead (#17282), which is the one of the training."""

PREFERRED: Final = ("gguf_q4_k_m", "gguf_q8_0", "gguf_q5_k_m", "gguf_q6_k", "gguf_f16", "gguf_q3_k_m")

_PORT: Final = 11434
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_SECONDS: Final = 10.0
_VERSION = re.compile(r"\bversion is v?(\d+)\.(\d+)\.(\d+)")
_PART = r"[a-z0-9][a-z0-9._-]{0,79}"
_NAME = re.compile(rf"{_PART}(/{_PART})?(:[A-Za-z0-9][A-Za-z0-9._-]{{0,79}})?")
_BASE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,200}")
_WITH_BASE: Final = "Modelfile-with-base"

Tell = Callable[[str], None]
"""Called with each line that Ollama prints; may raise to stop."""


@dataclass(frozen=True)
class Plan:
    """What would be handed over, and as what."""

    run: RunFolder
    format: str
    folder: Path
    name: str
    program: Path | None
    """Ollama; None where it is not on the PATH."""
    version: str = ""
    replaces: bool = False
    """Ollama has a model of this name, which becomes this one."""
    verdict: str = ""
    """The proof's; empty where none was made."""
    base: str = ""
    """What an adapter goes over: the absolute path of a GGUF, or a name in Ollama. Empty for a whole model."""
    begins: bool | None = None
    """As in the export's record."""

    @property
    def commands(self) -> tuple[str, str]:
        """To make the model, and to talk to it."""
        modelfile, before = shlex.quote(str(self.folder / "Modelfile")), ""
        if self.base:
            named = re.sub(r"([\\&|])", r"\\\1", self.base)
            own = shlex.quote(str(self.folder / _WITH_BASE))
            before = f"sed {shlex.quote(f's|^FROM .*|FROM {named}|')} {modelfile} > {own} && "
            modelfile = own
        return f"{before}ollama create {self.name} -f {modelfile}", f"ollama run {self.name}"

    def lines(self) -> list[str]:
        """The plan for a person, a line each."""
        found = [
            f"Model     {self.name}"
            + (" (Ollama has one of this name, which becomes this one)" if self.replaces else ""),
            f"From      {self.folder}",
            *([f"Over      {self.base}"] if self.base else []),
            f"Ollama    {self.program} {self.version}"
            if self.program
            else "Ollama    not on this machine's PATH",
        ]
        if self.begins is not None:
            found.append(f"{begins_otherwise(self.begins).why} {NOT_IN_OLLAMA}")
        if self.verdict in ("broken", "differs"):
            found.append(f"The proof says of it: {self.verdict}.")
        return found

    def as_json(self) -> dict[str, Any]:
        """The plan for a program."""
        return {
            "run": self.run.id,
            "format": self.format,
            "name": self.name,
            "ollama": str(self.program) if self.program else None,
            "version": self.version or None,
            "replaces": self.replaces,
            "base": self.base or None,
            "commands": list(self.commands),
        }


def plan(run: RunFolder, format: str = "", name: str = "", base: str = "") -> Plan:
    """What `ollama create` of the run's GGUF would do: of `format`, else of the one that most people want. Blocking.

    `base` is the GGUF of the base model, or its name in Ollama, that the adapter (`adapter_gguf`) goes over. Raises
    FinetuiError: export-missing, ollama-format (it is no GGUF), ollama-base, ollama-name, and where Ollama is here
    ollama-old, ollama-down, ollama-elsewhere, ollama-failed.
    """
    recipe = recipe_file.load(run.recipe)
    there = {done.format: done for done in leaving.finished(run) if done.gguf is not None}
    format = format or ("adapter_gguf" if base else "")
    if base or format == "adapter_gguf":
        base = _base(base, format, run, leaving.base_name(recipe))
    elif format and not format.startswith("gguf_"):
        raise FinetuiError(
            f"Ollama takes a GGUF, not {format}.",
            "The other formats are for Transformers, PEFT and vLLM.",
            f"Name one with --format, such as {next(iter(there), 'gguf_q8_0')}.",
            code="ollama-format",
        )
    wanted = format or next((f for f in (*PREFERRED, *there) if f in there), "gguf_q8_0")
    (done,) = leaving.chosen(run, [wanted])
    if base and not (done.folder / "Modelfile").is_file():
        raise FinetuiError(
            f"{done.info.title} of {run.id} has no Modelfile.",
            "Its chat template is not the base model's, and none that finetui can write for Ollama; or an older finetui "
            "exported it.",
            f"Take a whole model: finetui export {run.id} --format gguf_q8_0. An older export is made again with --replace.",
            code="export-missing",
        )
    if not (done.folder / "Modelfile").is_file():
        raise FinetuiError(
            f"{done.info.title} of {run.id} has no Modelfile.",
            "It tells Ollama the template, the stops and the system prompt; without it the model would talk gibberish.",
            f"Export it again: finetui export {run.id} --format {wanted}",
            code="export-missing",
        )
    called = check_name(name or recipe.name.lower())
    verdict = done.proof.verdict if done.proof is not None else ""
    program = shutil.which("ollama")
    if program is None:
        return Plan(run, wanted, done.folder, called, None, "", False, verdict, base, done.begins)
    version = _version(Path(program))
    names = _models()
    full = called if ":" in called else f"{called}:latest"
    replaces = full in names
    return Plan(
        run, wanted, done.folder, called, Path(program), version, replaces, verdict, base, done.begins
    )


def _base(base: str, format: str, run: RunFolder, called: str) -> str:
    """`base` as a Modelfile takes it: the absolute path of a GGUF, or a name in Ollama. Raises FinetuiError (ollama-base)."""
    fix = (
        f"Name a GGUF of {called} (--base on the command line), such as ~/models/base.gguf, or what Ollama calls that model. One can be "
        "made with llama.cpp's convert_hf_to_gguf.py."
    )
    if format != "adapter_gguf":
        what, why = (
            "--base goes with the format adapter_gguf.",
            f"{format} holds a whole model, or is no GGUF.",
        )
        raise FinetuiError(what, why, "Leave --base away.", code="ollama-base")
    if not base:
        what, why = (
            "An adapter goes over its base model, and none was named.",
            "It holds only what was learned.",
        )
        raise FinetuiError(what, why, fix, code="ollama-base")
    path = Path(base).expanduser()
    if path.is_file():
        path = path.absolute()
        with path.open("rb") as file:
            gguf = file.read(4) == b"GGUF"
        if path.resolve().is_relative_to(run.exports.resolve()):
            what, why = (
                "This is no base model.",
                "It is an export of the run, and holds what was learned already.",
            )
        elif not gguf or "\n" in str(path):
            what, why = "This is no base model.", f"{one_line(str(path), 300)} is no GGUF."
        else:
            return str(path)
        raise FinetuiError(what, why, fix, code="ollama-base")
    if base.endswith(".gguf") or base[:1] in "./~" or not _BASE_NAME.fullmatch(base):
        what, why = (
            "The base model is not there.",
            f"{one_line(base, 300)} is no file, and no model's name in Ollama.",
        )
        raise FinetuiError(what, why, fix, code="ollama-base")
    return base


def check_name(name: str) -> str:
    """`name` where Ollama takes it. Raises FinetuiError (ollama-name)."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise FinetuiError(
            f"{one_line(name, 100)!r} cannot be a model's name in Ollama.",
            "A name has small letters, digits, . _ and -, and begins with a letter or a digit; a tag may follow a colon.",
            "Name another one with --name, such as --name my-model.",
            code="ollama-name",
        )
    return name


def create(made: Plan, tell: Tell = lambda _line: None, check: Callable[[], None] = lambda: None) -> None:
    """Lets Ollama make the model. Blocking.

    `check` is called a few times a second and may raise to stop; Ollama's process has ended then. Raises FinetuiError:
    no-space, ollama-down, ollama-failed.
    """
    assert made.program is not None
    own = made.folder / _WITH_BASE
    argv = [str(made.program), "create", made.name, "-f", own.name if made.base else "Modelfile"]
    try:
        if made.base:
            text = (made.folder / "Modelfile").read_text(encoding="utf-8")
            text = re.sub(r"^FROM .*$", lambda _found: f"FROM {made.base}", text, count=1, flags=re.M)
            own.write_text(text, encoding="utf-8")
        process = subprocess.Popen(
            tied(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=made.folder,
            env=secrets.without(os.environ),
            start_new_session=True,
        )
    except OSError as error:
        raise _failed(str(error.strerror or error)) from error
    last = ""
    try:
        for line in _lines(process, check):
            last = line
            tell(line)
    finally:
        _end(process)
        if made.base:
            own.unlink(missing_ok=True)
    if process.returncode != 0:
        raise _failed(last or f"it ended with {process.returncode}")


def _lines(process: subprocess.Popen[bytes], check: Callable[[], None]) -> Any:
    """What it prints, line by line as it comes; a carriage return ends a line too."""
    import select

    assert process.stdout is not None
    descriptor, rest = process.stdout.fileno(), b""
    while True:
        check()
        if not select.select([descriptor], [], [], 0.2)[0]:
            continue
        part = os.read(descriptor, 65536)
        *lines, rest = re.split(rb"[\r\n]+", (rest + part)[-100_000:])
        for raw in [*lines, *([] if part else [rest])]:
            said = one_line(secrets.redact(raw.decode("utf-8", "replace")), 300)
            if said:
                yield said
        if not part:
            process.wait()
            return


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _version(program: Path) -> str:
    """The version of the program, checked. Raises FinetuiError (ollama-old, ollama-failed)."""
    try:
        ran = subprocess.run(
            [str(program), "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=secrets.without(os.environ),
            timeout=_SECONDS * 3,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(one_line(str(error), 200)) from error
    said = ran.stdout.decode("utf-8", "replace")
    found = _VERSION.findall(said)
    if not found:
        raise _failed(one_line(said, 200) or "it does not tell its version")
    oldest = min(
        tuple(int(number) for number in numbers) for numbers in found
    )  # of the program and its server
    words = ".".join(map(str, oldest))
    if oldest < OLDEST and oldest != (0, 0, 0):  # 0.0.0 is what a build of one's own says
        raise FinetuiError(
            f"Ollama {words} is too old.",
            f"The model's template needs {'.'.join(map(str, OLDEST))} or newer; an older one would speak to it in the wrong way.",
            "Update Ollama (ollama.com/download), then try again.",
            code="ollama-old",
        )
    return words


def _models() -> frozenset[str]:
    """The models that the running Ollama has. Raises FinetuiError: ollama-down, ollama-elsewhere, ollama-failed."""
    host, port = _address()
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    try:
        connection.request("GET", "/api/tags")
        answer = connection.getresponse()
        told = json.loads(answer.read(16 * 1024**2)) if answer.status == 200 else None
    except OSError as error:
        raise FinetuiError(
            "Ollama is not running.",
            f"Nothing answers at {host}:{port} ({error.strerror or error}).",
            "Start it (ollama serve, or its desktop application), then try again.",
            code="ollama-down",
        ) from error
    except (http.client.HTTPException, ValueError, RecursionError) as error:
        raise _failed(f"what answers at {host}:{port} is not Ollama") from error
    finally:
        connection.close()
    models = told.get("models") if isinstance(told, dict) else None
    if not isinstance(models, list):
        raise _failed(f"it answered with status {answer.status}")
    return frozenset(str(one.get("name", "")) for one in models if isinstance(one, dict))


def _address() -> tuple[str, int]:
    """Where Ollama listens, by OLLAMA_HOST. Raises FinetuiError (ollama-elsewhere) for another machine."""
    named = os.environ.get("OLLAMA_HOST", "").strip().strip("\"'")
    try:
        parts = urlsplit(named if "//" in named else f"//{named}")
        host = parts.hostname or "127.0.0.1"
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, _PORT)
    except ValueError:
        host, port = named, _PORT
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    if host not in _LOOPBACK:
        raise FinetuiError(
            "Ollama is set to another machine.",
            f"OLLAMA_HOST names {one_line(host, 100)}; the model would be sent there.",
            "Unset OLLAMA_HOST, or copy the folder there (finetui copy) and run the commands on it.",
            code="ollama-elsewhere",
        )
    return host, port


def _failed(said: str) -> FinetuiError:
    said = said.removeprefix("Error: ")
    if "no space left" in said.lower():
        return FinetuiError(
            "The disk is full.",
            f"Ollama says: {said}",
            "Free some space where Ollama keeps its models (OLLAMA_MODELS), then try again.",
            code="no-space",
        )
    if "could not connect" in said.lower() or "connection refused" in said.lower():
        return FinetuiError(
            "Ollama is not running.",
            f"Ollama says: {said}",
            "Start it (ollama serve, or its desktop application), then try again.",
            code="ollama-down",
        )
    return FinetuiError(
        "Ollama could not make the model.",
        f"Ollama says: {said}",
        "Update Ollama and try again; llama-cli runs the same file without it.",
        code="ollama-failed",
    )
