"""A copy is whole or not there, and says so itself with SHA-256 sums."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetui.core import copying
from finetui.core.errors import FinetuiError
from finetui.core.runs.store import RunFolder

from ..outgoing import SECRET_ROW, contents, finished_run


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))


@pytest.fixture
def run() -> RunFolder:
    return finished_run()


def beside(target: Path) -> list[str]:
    """What stands where the copy stands, hidden things included."""
    return sorted(p.name for p in target.parent.iterdir() if p.name != "home")


def refused(run: RunFolder, target: Path, code: str = "copy-target") -> FinetuiError:
    with pytest.raises(FinetuiError) as caught:
        copying.copy(copying.plan(run, target))
    assert caught.value.code == code, str(caught.value)
    return caught.value


def test_the_copy_checks_itself_and_holds_no_rows(run: RunFolder, tmp_path: Path) -> None:
    target = tmp_path / "out"
    told: list[tuple[int, int]] = []
    copying.copy(copying.plan(run, target), lambda done, total: told.append((done, total)))
    checked = subprocess.run(
        ["sha256sum", "-c", "--strict", "SHA256SUMS"], cwd=target, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    found = contents(target)
    assert checked.stdout.count(b": OK") == len(found) - 1
    assert (
        found["adapter/adapter_model.safetensors"]
        == (run.exports / "adapter/adapter_model.safetensors").read_bytes()
    )
    assert b"FROM ./demo-Q8_0.gguf" in found["Modelfile"] and "demo-Q8_0.gguf" in found
    assert b"ollama create demo -f Modelfile" in found["commands.txt"]
    assert not [name for name, content in found.items() if SECRET_ROW.encode() in content or "proof" in name]
    assert not [name for name, content in found.items() if str(run.path).encode() in content]
    assert told[0][0] == 0 and told[-1][0] == told[-1][1], "progress runs to its end"
    assert beside(target) == ["out"]


def test_several_ggufs_keep_their_modelfiles_apart(tmp_path: Path) -> None:
    run = finished_run(("gguf_q8_0", "gguf_q4_k_m"))
    copying.copy(copying.plan(run, tmp_path / "out"))
    found = contents(tmp_path / "out")
    assert (
        b"FROM ./demo-Q4_K_M.gguf" in found["Modelfile-Q4_K_M"]
        and b"FROM ./demo-Q8_0.gguf" in found["Modelfile-Q8_0"]
    )
    assert b"ollama create demo:q4_k_m -f Modelfile-Q4_K_M" in found["commands.txt"]


def test_an_earlier_copy_is_replaced_and_nothing_else_is(run: RunFolder, tmp_path: Path) -> None:
    target = tmp_path / "out"
    copying.copy(copying.plan(run, target))
    (run.exports / "gguf_q8_0/demo-Q8_0.gguf").write_bytes(b"GGUFnew")
    again = copying.plan(run, target)
    assert again.replaces
    copying.copy(again)
    assert (target / "demo-Q8_0.gguf").read_bytes() == b"GGUFnew" and beside(target) == ["out"]
    (target / "letter.txt").write_text("mine")
    assert str(target / "demo") in refused(run, target).fix
    assert (target / "letter.txt").read_text() == "mine"


def test_places_that_cannot_be_it(run: RunFolder, tmp_path: Path) -> None:
    file, link, mine = tmp_path / "file", tmp_path / "link", tmp_path / "mine"
    file.write_text("x")
    link.symlink_to(tmp_path)
    mine.mkdir()
    (mine / "thesis.tex").write_text("x")
    for target in (file, link, mine, Path("/"), run.exports / "copy", tmp_path / "a\0b"):
        refused(run, target)
    assert (mine / "thesis.tex").exists() and link.is_symlink() and file.read_text() == "x"
    empty = tmp_path / "empty"
    empty.mkdir()
    copying.copy(copying.plan(run, empty))
    assert (empty / "SHA256SUMS").is_file()


def test_strange_names_are_just_names(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-rf", "a b;$(touch canary)", "../over"):
        copying.copy(copying.plan(run, Path("sub" if name.startswith("..") else ".") / name))
    assert (tmp_path / "-rf/SHA256SUMS").is_file() and (tmp_path / "over/SHA256SUMS").is_file()
    assert not (tmp_path / "canary").exists()


def test_what_is_not_exported_is_said(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(FinetuiError) as caught:
        copying.plan(run, tmp_path / "out", ("gguf_f16",))
    assert (
        caught.value.code == "export-missing"
        and f"finetui export {run.id} --format gguf_f16" in caught.value.fix
    )


def test_too_little_space_is_said_before(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (run.exports / "merged/model.safetensors").open("r+b") as file:
        file.truncate(1 << 43)  # a sparse file: 8 TiB that take no room
    card = refused(run, tmp_path / "out", "no-space")
    assert "TiB" in card.why and beside(tmp_path / "out") == []


_COPY = (
    "import resource, sys; from pathlib import Path; from finetui.core import copying; from finetui.core.runs.store import RunFolder\n"
    "limit = int(sys.argv[3])\n"
    "if limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
    "import signal, time; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "told = lambda done, total: (print(done, flush=True), done < 500_000 or limit or time.sleep(600))\n"
    "copying._CHUNK = 65536\n"
    "copying.copy(copying.plan(RunFolder(Path(sys.argv[1])), Path(sys.argv[2])), told)\n"
)


def start(run: RunFolder, target: Path, limit: int = 0) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", _COPY, str(run.path), str(target), str(limit)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_write_that_fails_leaves_nothing(run: RunFolder, tmp_path: Path) -> None:
    ran = start(run, tmp_path / "out", 70_000)
    _out, errors = ran.communicate(timeout=120)
    assert ran.returncode == 1 and b"The disk takes no file of this size" in errors, errors
    assert beside(tmp_path / "out") == []


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[tuple[RunFolder, Path]]:
    """A copy of a larger run, killed in its middle over an earlier copy."""
    run, target = finished_run(("gguf_q8_0",), 2_000_000), tmp_path / "out"
    copying.copy(copying.plan(run, target))
    (run.exports / "gguf_q8_0/demo-Q8_0.gguf").write_bytes(b"GGUF" + os.urandom(2_000_000))
    ran = start(run, target)
    assert ran.stdout is not None
    while int(ran.stdout.readline()) < 500_000:  # where it stands still
        pass
    ran.send_signal(signal.SIGKILL)
    ran.communicate()
    yield run, target


def test_a_kill_leaves_the_earlier_copy_and_the_next_one_sweeps(killed: tuple[RunFolder, Path]) -> None:
    run, target = killed
    check = ["sha256sum", "-c", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=target, check=False).returncode == 0, "the earlier copy is whole"
    assert len(beside(target)) == 2, "and what was begun has another name"
    copying.copy(copying.plan(run, target))
    assert beside(target) == ["out"]
    assert (target / "demo-Q8_0.gguf").read_bytes() == (run.exports / "gguf_q8_0/demo-Q8_0.gguf").read_bytes()


def test_a_copy_that_was_set_aside_comes_back(run: RunFolder, tmp_path: Path) -> None:
    """Killed between the two renames: the earlier copy stands under its spare name."""
    target = tmp_path / "out"
    copying.copy(copying.plan(run, target))
    target.rename(tmp_path / ".finetui-old-out")
    assert copying.plan(run, target).replaces and beside(target) == ["out"]


def test_stopping_leaves_nothing(run: RunFolder, tmp_path: Path) -> None:
    def stop(done: int, _total: int) -> None:
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copying.copy(copying.plan(run, tmp_path / "out"), stop)
    assert beside(tmp_path / "out") == []


def test_links_in_an_export_do_not_leave(run: RunFolder, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (run.exports / "merged/generation_config.json").symlink_to(secret)
    copying.copy(copying.plan(run, tmp_path / "out"))
    assert "generation_config.json" not in contents(tmp_path / "out")


def test_each_modelfile_leaves_under_a_name_of_its_own(tmp_path: Path) -> None:
    run = finished_run(("gguf_q8_0",))
    folder = run.exports / "adapter_gguf"
    folder.mkdir()
    (folder / "demo-lora.gguf").write_bytes(b"GGUF")
    (folder / "Modelfile").write_text("FROM ./BASE.gguf\nADAPTER ./demo-lora.gguf\n")
    copying.copy(copying.plan(run, tmp_path / "out"))
    found = contents(tmp_path / "out")
    assert b"ADAPTER ./demo-lora.gguf" in found["Modelfile-adapter"]
    assert b"FROM ./demo-Q8_0.gguf" in found["Modelfile-Q8_0"] and "Modelfile" not in found
    assert b"ollama create demo -f Modelfile-adapter && ollama run demo" in found["commands.txt"]
    assert b"ollama create demo:q8_0 -f Modelfile-Q8_0" in found["commands.txt"]
    copying.copy(copying.plan(run, tmp_path / "alone", ["adapter_gguf"]))
    assert b"-f Modelfile &&" in contents(tmp_path / "alone")["commands.txt"]
