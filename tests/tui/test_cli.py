"""The command line as a person and a program meet it: real processes, their output and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from finetui.core.runs.events import Ended, Sample, Step
from finetui.tui.commands import exits

from ..core.run_events import gone
from .command_line import Cli, Result, cli, make_run

__all__ = ["cli"]


HEAVY = ("textual", "torch", "unsloth", "transformers", "trl", "peft", "datasets")


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
