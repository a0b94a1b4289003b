"""The doctor: every finding says something, what is wrong has a fix, and nothing secret is shown."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from finetui.core import doctor, terminal_checks
from finetui.core.doctor import Check
from finetui.core.system import Gpu, Machine

from ..hub_server import running

GIB = 1024**3
CPU_BOX = Machine(2, None, 24 * GIB, 20 * GIB, 50 * GIB)
GPU_BOX = Machine(2, None, 24 * GIB, 20 * GIB, 50 * GIB, (Gpu(0, "H100", 80 * GIB, GIB, driver="550.54.15"),))


def found(online: bool = False) -> dict[str, Check]:
    return {check.name: check for check in doctor.checks(online)}


def test_findings_of_this_machine() -> None:
    checks = list(doctor.checks())
    names = [check.name for check in checks]
    assert len(names) == len(set(names)) and "Hub" not in names, "the hub is asked only when online"
    for check in checks:
        assert check.detail and "\n" not in check.detail
        assert check.status == "ok" or check.fix, f"{check.name} is wrong and has no fix"
    assert found()["Packages"].status == "ok" and "unsloth 2026" in found()["Packages"].detail


def test_torch_build_and_gpu_must_agree() -> None:
    assert doctor.torch_check(None, CPU_BOX).status == "ok"
    assert doctor.torch_check("12.8", CPU_BOX).status == "ok"
    assert doctor.torch_check("12.8", GPU_BOX).status == "ok"
    assert doctor.torch_check(None, GPU_BOX).status == "bad"


def test_an_old_driver_is_named() -> None:
    assert doctor.gpu_check("12.8", GPU_BOX).status == "ok"
    check = doctor.gpu_check("13.0", GPU_BOX)
    assert check.status == "bad" and "580" in check.fix


def test_little_memory() -> None:
    def status(free: float) -> str:
        return doctor.memory_check(Machine(2, None, 24 * GIB, int(free * GIB), None)).status

    assert [status(1), status(3), status(8)] == ["bad", "warn", "ok"]


@pytest.mark.parametrize(
    ("version", "answer"), [("2.13.0+cpu", (2, 13, 0)), ("2026.10.9.post1", (2026, 10, 9)), ("x", ())]
)
def test_version_numbers(version: str, answer: tuple[int, ...]) -> None:
    assert doctor.numbers(version) == answer


def test_a_home_that_others_can_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    assert doctor.home_check().status == "ok", "not made yet, and can be"
    (tmp_path / "home" / "data").mkdir(parents=True)
    (tmp_path / "home" / "data").chmod(0o755)
    assert doctor.home_check().status == "warn"
    (tmp_path / "home" / "data").chmod(0o700)
    assert doctor.home_check().status == "ok"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "file"))
    assert doctor.home_check().status == "bad"


def test_the_token_is_told_but_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canarycanary")
    checks = found()
    assert checks["Hub token"].detail == "present"
    assert "canary" not in repr(checks)


def test_llama_cpp_is_found_where_unsloth_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNSLOTH_LLAMA_CPP_PATH", str(tmp_path))
    assert "not here" in doctor.llama_cpp_check().detail
    (tmp_path / "llama-quantize").write_text("")
    assert "llama-quantize at" in doctor.llama_cpp_check().detail
    monkeypatch.delenv("UNSLOTH_LLAMA_CPP_PATH")
    monkeypatch.setenv("FINETUI_HOME", str(tmp_path / "home"))
    assert "not here" in doctor.llama_cpp_check().detail
    built = tmp_path / "home" / "cache" / "llama.cpp" / "0.94.0"
    built.mkdir(parents=True)
    (built / "llama-quantize").write_text("")
    assert "llama-quantize at" in doctor.llama_cpp_check().detail


def test_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor.hub_check().status == "warn"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with running() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        assert doctor.hub_check().status == "ok"
    assert doctor.hub_check().status == "warn", "nothing listens there any more"


def test_logind_that_ends_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    low, high = tmp_path / "usr", tmp_path / "etc"
    (low / "logind.conf.d").mkdir(parents=True)
    (high / "logind.conf.d").mkdir(parents=True)
    folders = (str(low), str(high))
    assert not terminal_checks.kills_user_processes(folders)
    (low / "logind.conf").write_text("[Login]\n#KillUserProcesses=no\nKillUserProcesses=yes\n")
    assert terminal_checks.kills_user_processes(folders)
    linger = tmp_path / "linger"
    linger.mkdir()
    monkeypatch.setenv("USER", "ann")
    session, manager, container = tmp_path / "session", tmp_path / "manager", tmp_path / "container"
    session.write_text("0::/user.slice/user-1000.slice/session-3.scope\n")
    manager.write_text("0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-u7.scope\n")
    container.write_text("0::/\n")

    def check(where: Path) -> Check:
        return terminal_checks.log_out_check(folders, str(linger), str(where))

    assert check(session).status == "warn" and "enable-linger" in check(session).fix
    assert check(manager).status == "warn" and "systemd-run" not in check(manager).fix
    assert check(container).status == "ok"
    (linger / "ann").write_text("")
    assert check(manager).status == "ok"
    assert check(session).status == "warn", "lingering keeps the manager, and not the session"
    assert (
        "systemd-run --user --scope finetui" in check(session).fix
        and "enable-linger" not in check(session).fix
    )
    (low / "logind.conf.d" / "50-keep.conf").write_text("[Login]\nKillUserProcesses = no\n")
    assert not terminal_checks.kills_user_processes(folders)
    (high / "logind.conf").write_text("[Login]\nKillUserProcesses=yes\n")
    assert not terminal_checks.kills_user_processes(folders), "a drop-in counts more than any main file"
    (low / "logind.conf.d" / "50-keep.conf").unlink()
    (high / "logind.conf").write_text("[Login]\n#KillUserProcesses=yes\n")
    assert terminal_checks.kills_user_processes(folders), "the default that it was built with"


@pytest.mark.parametrize(
    ("environment", "rows", "columns", "status"),
    [
        ({"TERM": "xterm-256color"}, 24, 80, "ok"),
        ({"TERM": "xterm-256color"}, 10, 40, "warn"),
        ({"TERM": "dumb"}, 24, 80, "warn"),
        ({"TERM": "xterm", "PYTHONIOENCODING": "latin-1"}, 24, 80, "warn"),
    ],
)
def test_the_terminal(environment: dict[str, str], rows: int, columns: int, status: str) -> None:
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    script = "import sys; from finetui.core.terminal_checks import terminal_check; c = terminal_check(); "
    script += "sys.stderr.write(c.status)"
    clean = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "PYTHONIOENCODING", "TERM")}
    try:
        done = subprocess.run(
            [sys.executable, "-X", "utf8", "-c", script],
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env={**clean, **environment},
            timeout=60,
            check=True,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.stderr.decode() == status
