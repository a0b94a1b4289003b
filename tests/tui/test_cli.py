"""The command line as a person and a program meet it: real processes, their output and exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from finetui.core.runs import event_log, events, store
from finetui.core.runs.event_log import Record
from finetui.core.runs.events import Ended, Progress, Sample, Started, Step
from finetui.tui.commands import exits

HOST = socket.gethostname()
HEAVY = ("textual", "torch", "unsloth", "transformers", "trl", "peft", "datasets")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@dataclass
class Cli:
    home: Path

    def environment(self, **more: str) -> dict[str, str]:
        return {**os.environ, "FINETUI_HOME": str(self.home), "COLUMNS": "100", **more}

    def start(self, *words: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "finetui.tui", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=self.environment(**more),
            cwd=self.home,
        )

    def __call__(self, *words: str, **more: str) -> Result:
        process = self.start(*words, **more)
        out, err = process.communicate(timeout=240)
        assert "Traceback" not in out + err
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", out + err)
        return Result(process.returncode, out, err)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path))
    return Cli(tmp_path)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def make_run(*happened: events.Event, name: str = "try") -> store.RunFolder:
    run = store.create(name)
    run.recipe.write_text("version: 1\n")
    now = time.time()
    run.events.write_bytes(b"".join(event_log.encode(Record(i + 1, now, e)) for i, e in enumerate(happened)))
    return run


def gone() -> Started:
    return Started("train", 2**22 + 1, 1.0, HOST, "try")


def at_work(process: subprocess.Popen[bytes]) -> store.RunFolder:
    made = psutil.Process(process.pid).create_time()
    return make_run(
        Started("train", process.pid, made, HOST), Progress("train", 0, 9), Step(1, 9, 0.1, 2.5, 1e-4)
    )


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "words",
    [
        (),
        *((c,) for c in ("demo", "train", "runs", "attach", "stop", "resume", "export", "doctor", "recipe")),
        *(("recipe", c) for c in ("init", "check", "schema", "fields")),
    ],
    ids=" ".join,
)
def test_help(cli: Cli, words: tuple[str, ...]) -> None:
    result = cli(*words, "--help")
    assert result.code == 0 and "Usage: finetui" in result.out and not result.err
    if not words:
        assert all(str(code) in result.out for code in exits.MEANINGS)


def test_version(cli: Cli) -> None:
    from importlib.metadata import version

    assert cli("--version") == Result(0, f"finetui {version('finetui')}\n", "")


def modules(cli: Cli, *words: str) -> set[str]:
    code = (
        "import sys\nfrom finetui.tui.__main__ import main\nmain(sys.argv[1:])\n"
        "print('\\n' + '\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env=cli.environment(),
        cwd=cli.home,
        check=True,
        timeout=240,
    )
    return {name.partition(".")[0] for name in done.stderr.splitlines()}


@pytest.mark.parametrize("words", [("--version",), ("--help",)], ids=" ".join)
def test_help_and_version_load_next_to_nothing(cli: Cli, words: tuple[str, ...]) -> None:
    assert modules(cli, *words).isdisjoint((*HEAVY, "pydantic", "psutil", "yaml", "rich", "platformdirs"))


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--help"),
        ("runs",),
        ("recipe", "fields"),
        ("recipe", "init", "-"),
        ("attach", "last"),
        ("doctor",),
        ("train", "x.yaml"),
    ],
    ids=" ".join,
)
def test_no_command_loads_the_screen_or_torch(cli: Cli, words: tuple[str, ...]) -> None:
    make_run(gone(), Ended("train", "completed"))
    (cli.home / "x.yaml").write_text("model: {source: ./none}\n")
    assert modules(cli, *words).isdisjoint(HEAVY)


BAD: list[tuple[tuple[str, ...], int, str, str]] = [
    ((), exits.USAGE, "usage", "no terminal"),
    (("train", "gone.yaml"), exits.NOT_FOUND, "recipe-missing", "gone.yaml"),
    (("train", "."), exits.NOT_FOUND, "recipe-missing", "directory"),
    (("train", "typo.yaml"), exits.RECIPE, "recipe", "typo.yaml:2"),
    (("train", "newer.yaml"), exits.RECIPE, "recipe", "newer.yaml:1"),
    (("train", "binary.yaml"), exits.RECIPE, "recipe", "UTF-8"),
    (("train", "ok.yaml", "--set", "lora.rnk=3"), exits.RECIPE, "recipe", "lora.rank"),
    (("train", "ok.yaml", "--set", "lora.rank=0"), exits.RECIPE, "recipe", "1 to 1,024"),
    (("train", "ok.yaml", "--set", "lora.rank"), exits.RECIPE, "recipe", "KEY=VALUE"),
    (("train", "ok.yaml", "--set", "name=../x"), exits.RECIPE, "recipe", "name"),
    (("train", "ok.yaml", "--set", "model.source=./none"), exits.NOT_FOUND, "model-missing", "none"),
    (
        ("train", "ok.yaml", "--set", "dataset.source=none.jsonl"),
        exits.NOT_FOUND,
        "dataset-missing",
        "none.jsonl",
    ),
    (
        ("train", "ok.yaml", "--set", "dataset.source=empty.jsonl"),
        exits.REFUSED,
        "dataset-empty",
        "empty.jsonl",
    ),
    (("demo", "--plain", "--set", "training.epochs=many"), exits.RECIPE, "recipe", "many"),
    (("train", "~nobody-at-all/r.yaml"), exits.NOT_FOUND, "file-missing", "nobody-at-all"),
    (("train", "x" * 5000), exits.NOT_FOUND, "recipe-missing", "too long"),
    (
        ("train", "ok.yaml", "--set", "model.source=~nobody-at-all/m"),
        exits.NOT_FOUND,
        "model-missing",
        "nobody-at-all",
    ),
    (("attach", "x" * 5000), exits.NOT_FOUND, "run-not-found", "xxx"),
    (("attach", "~nobody-at-all"), exits.NOT_FOUND, "run-not-found", "nobody-at-all"),
    (("attach", "nobody"), exits.NOT_FOUND, "run-not-found", "nobody"),
    (("stop", "nobody"), exits.NOT_FOUND, "run-not-found", "nobody"),
    (("stop", "try"), exits.REFUSED, "run-not-running", "completed"),
    (("stop", "try", "--now", "--kill"), exits.USAGE, "usage", "--kill"),
    (("stop", "try", "--kill"), exits.REFUSED, "run-not-running", "completed"),
    (("resume", "nobody"), exits.NOT_FOUND, "run-not-found", "nobody"),
    (("resume", "try"), exits.REFUSED, "nothing-to-resume", "to its end"),
    (("export", "try", "--format", "gguf_q8"), exits.USAGE, "usage", "gguf_q8_0"),
    (("export", "try", "--format", ","), exits.USAGE, "usage", "merged"),
    (("export", "try", "--format", "merged"), exits.REFUSED, "export-nothing", "adapter"),
    (("export", "nobody", "--format", "merged"), exits.NOT_FOUND, "run-not-found", "nobody"),
    (("recipe", "check", "typo.yaml"), exits.RECIPE, "recipe", "did you mean"),
    (
        (
            "recipe",
            "check",
            "ok.yaml",
            "--set",
            "training.keep_best=true",
            "--set",
            "dataset.evaluation_share=0",
        ),
        exits.RECIPE,
        "recipe",
        "training.keep_best: Keep best has nothing to go by",
    ),
    (("recipe", "init", "ok.yaml"), exits.REFUSED, "file-exists", "--force"),
    (("recipe", "init", "no/folder/r.yaml"), exits.NOT_FOUND, "file-missing", "no/folder"),
    (("recipe", "fields", "lorra"), exits.USAGE, "usage", "lora"),
]


@pytest.mark.parametrize(
    ("words", "code", "name", "hint"), BAD, ids=lambda v: " ".join(v) if isinstance(v, tuple) else ""
)
def test_bad_input_is_a_card_and_an_exit_code(
    cli: Cli, words: tuple[str, ...], code: int, name: str, hint: str
) -> None:
    make_run(gone(), Ended("train", "completed"))
    (cli.home / "ok.yaml").write_text("name: ok\n")
    (cli.home / "typo.yaml").write_text("lora:\n  rnak: 8\n")
    (cli.home / "newer.yaml").write_text("version: 99\n")
    (cli.home / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (cli.home / "empty.jsonl").write_text("")
    before = [r.id for r in store.all_runs()]
    result = cli(*words)
    assert result.code == code, result
    assert not result.out
    assert hint in result.err
    assert len(result.err.splitlines()) >= 3  # what, why, fix
    assert [r.id for r in store.all_runs()] == before  # nothing half-made is left behind
    if words and words[0] not in ("demo",) and words != ("recipe", "init", "ok.yaml") and "init" not in words:
        told = json.loads(cli(*words, "--json").out)["error"]
        assert told["code"] == name and hint in " ".join(told.values())


def test_a_disk_that_takes_nothing_is_a_card_and_leaves_no_run(cli: Cli) -> None:
    (cli.home / "ok.yaml").write_text("name: ok\n")
    code = (
        "import resource, signal, sys\nfrom finetui.tui.__main__ import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\nsys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "ok.yaml", "--json"],
        capture_output=True,
        text=True,
        env=cli.environment(),
        cwd=cli.home,
        timeout=240,
    )
    assert done.returncode == exits.REFUSED, done
    assert json.loads(done.stdout)["error"]["code"] == "run-folder"
    assert list((cli.home / "data" / "runs").iterdir()) == []


@pytest.mark.parametrize(
    "words", [("bogus",), ("--bogus",), ("train",), ("stop",), ("export",), ("runs", "x")], ids=" ".join
)
def test_wrong_usage_is_2(cli: Cli, words: tuple[str, ...]) -> None:
    result = cli(*words)
    assert result.code == exits.USAGE and "Usage" in result.err and not result.out


def test_init_check_and_fields(cli: Cli) -> None:
    assert cli("recipe", "init", "--set", "training.epochs=2.5", "--set", "name=mine").code == 0
    shown = json.loads(cli("recipe", "check", "recipe.yaml", "--json").out)
    assert (
        shown["valid"] and shown["recipe"]["training"]["epochs"] == 2.5 and shown["recipe"]["name"] == "mine"
    )
    assert "valid recipe" in cli("recipe", "check", "recipe.yaml").out
    assert cli("recipe", "init", "--demo", "--force").code == 0
    assert json.loads(cli("recipe", "schema").out)["type"] == "object"
    listed = json.loads(cli("recipe", "fields", "--json").out)
    from finetui.core.fields import fields

    assert [f["path"] for f in listed] == [spec.path for spec in fields()]
    assert "lora.rank=16" in cli("recipe", "fields", "lora").out


def test_the_list_of_runs(cli: Cli, sleeper: subprocess.Popen[bytes]) -> None:
    assert "No run" in cli("runs").out and json.loads(cli("runs", "--json").out) == []
    done = make_run(gone(), Step(9, 9, 1.0, float("nan"), 1e-4), Ended("train", "completed", 61), name="done")
    live = at_work(sleeper)
    make_run(gone(), name="lost\x1b[31m")
    rows = {row["run"]: row for row in json.loads(cli("runs", "--json").out)}
    assert rows[done.id]["state"] == "completed" and rows[done.id]["loss"] is None
    assert rows[live.id]["state"] == "running" and rows[live.id]["step"] == 1
    assert sum(row["state"] == "crashed" for row in rows.values()) == 1
    text = cli("runs").out
    assert re.search(rf"{done.id} +completed +step 9/9 · loss nan · took 1 min 01 s", text)
    assert re.search(rf"{live.id} +running", text)


@pytest.mark.parametrize(
    ("reason", "code"),
    [("completed", exits.OK), ("stopped", exits.STOPPED), ("failed", exits.FAILED), ("", exits.CRASHED)],
)
def test_attach_tells_how_it_ended(cli: Cli, reason: str, code: int) -> None:
    ended = (Ended("train", reason, 5.0, "It broke.", "So.", "Do."),) if reason else ()
    run = make_run(
        gone(), Step(1, 9, 0.1, 2.5, 1e-4), Sample(1, 0, "hi", "a\x1b]52;c;AAAA\x07b\x9b31m‮"), *ended
    )
    for words in (("--plain",), ()):
        result = cli("attach", "last", *words)
        assert result.code == code and "step 1/9" in result.out and "loss 2.500" in result.out
        assert (reason or "crashed") in result.out
        assert "‮" not in result.out
    told = cli("attach", run.id, "--json")
    assert told.code == code
    lines = told.out.splitlines()
    if not reason:
        assert json.loads(lines.pop())["error"]["code"] == "vanished"
    assert "\n".join(lines) + "\n" == run.events.read_text()


def test_json_leaves_out_broken_lines(cli: Cli) -> None:
    run = make_run(gone(), Ended("train", "completed"))
    first, last = run.events.read_bytes().splitlines(keepends=True)
    run.events.write_bytes(first + b'{"torn": \n\xff\n[1]\n' + last)
    assert cli("attach", "last", "--json").out.encode() == first + last


def test_stop_leaves_a_request_and_kill_spares_a_stranger(cli: Cli, sleeper: subprocess.Popen[bytes]) -> None:
    run = at_work(sleeper)
    assert cli("stop", "try").code == 0
    assert cli("stop", run.id[:12]).code == 0
    assert [p.name for p in run.control.iterdir()] == ["stop"]
    assert json.loads(cli("stop", str(run.path), "--now", "--json").out)["request"] == "stop-now"
    assert cli("stop", "try", "--kill").code == exits.REFUSED
    assert cli("resume", "try").code == exits.REFUSED
    assert sleeper.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("words", [("--plain",), ("--json",)], ids=" ".join)
def test_a_follower_that_is_ended_leaves_the_run_alone(
    cli: Cli, sleeper: subprocess.Popen[bytes], number: signal.Signals, words: tuple[str, ...]
) -> None:
    run = at_work(sleeper)
    follower = cli.start("attach", run.id, *words)
    assert follower.stdout
    seen = follower.stdout.readline()
    assert seen
    follower.send_signal(number)
    out, err = follower.communicate(timeout=120)
    assert follower.returncode == (exits.INTERRUPTED if number == signal.SIGINT else -number)
    assert "Traceback" not in out + err
    if number == signal.SIGINT:
        assert run.id in err and "goes on" in err
    assert sleeper.poll() is None and list(run.control.iterdir()) == []


def test_a_reader_that_goes_away_is_no_fault(cli: Cli, sleeper: subprocess.Popen[bytes]) -> None:
    run = at_work(sleeper)
    follower = cli.start("attach", run.id, "--json")
    assert follower.stdout and follower.stderr
    assert follower.stdout.readline()
    follower.stdout.close()
    with run.events.open("ab") as file:
        file.write(event_log.encode(Record(9, time.time(), Step(2, 9, 0.2, 2.0, 1e-4))))
    until(lambda: follower.poll() is not None)
    assert follower.stderr.read() == ""
    assert sleeper.poll() is None
    follower.stderr.close()


@pytest.mark.parametrize("more", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}])
def test_a_poor_locale_is_no_fault(cli: Cli, more: dict[str, str]) -> None:
    make_run(gone(), Step(1, 9, 0.1, 2.5, 1e-4), Ended("train", "completed"))
    assert cli("attach", "last", **more).code == 0
    assert cli("recipe", "fields", **more).code == 0
    assert cli("attach", "nöbody", **more).code == exits.NOT_FOUND


@pytest.mark.parametrize(
    "words", [("--ascii", "recipe", "fields"), ("attach", "last", "--ascii")], ids=" ".join
)
def test_ascii_is_ascii(cli: Cli, words: tuple[str, ...]) -> None:
    make_run(gone(), Step(1, 9, 0.1, 2.5, 1e-4), Sample(1, 0, "x", "ü → 日本"), Ended("train", "completed"))
    result = cli(*words)
    assert result.code == 0 and result.out.isascii()


def test_a_token_in_an_error_is_hidden(cli: Cli) -> None:
    secret = "hf_" + "Abc123" * 5
    result = cli("attach", secret, HF_TOKEN=secret)
    assert result.code == exits.NOT_FOUND and secret not in result.out + result.err


def test_doctor(cli: Cli) -> None:
    told = cli("doctor", "--json")
    found = json.loads(told.out)
    assert told.code == (exits.OK if found["ok"] else exits.REFUSED)
    plain = cli("doctor")
    assert plain.code == told.code
    assert all(check["name"] in plain.out for check in found["checks"])
