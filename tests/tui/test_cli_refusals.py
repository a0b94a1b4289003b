"""What the command line refuses: a card, an exit code, and nothing half-made left behind."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from finetui.core.runs import store
from finetui.core.runs.events import Ended
from finetui.tui.commands import exits

from ..core.run_events import gone
from .command_line import Cli, cli, make_run

__all__ = ["cli"]


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
            "training.early_stopping_patience=2",
            "--set",
            "dataset.evaluation_share=0",
        ),
        exits.RECIPE,
        "recipe",
        "training.early_stopping_patience: Patience has nothing to go by",
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
