"""Each way that an install can fail is one line with the cause, a non-zero status, and none of pip's scroll."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from bootstrap import pip_output
from tests.install.project import UNREACHABLE, create, spoken


def told(output: str) -> str:
    """The one line that says what went wrong; everything else must be progress."""
    assert "Traceback" not in output
    assert "ERROR:" not in output
    lines = spoken(output)
    faults = [
        line for line in lines if line.startswith("finetui: ") and not line.startswith("finetui: installing")
    ]
    assert faults == lines[-1:]
    return lines[-1]


def test_too_little_disk_is_said_before_anything_is_made(tmp_path: Path) -> None:
    project = create(tmp_path)
    (project.root / "requirements" / "cpu.txt").write_text("# disk: 9000000 GB\niniconfig==2.3.1\n")
    status, output = project.make()
    assert status != 0
    line = told(output)
    assert "needs 9e+06 GB" in line
    assert "GB free" in line
    assert not project.venv.exists()


def test_a_disk_that_fills_up_on_the_way(tmp_path: Path) -> None:
    def no_file_over_half_a_megabyte() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    project = create(tmp_path)
    status, output = project.make(before=no_file_over_half_a_megabyte)
    assert status != 0
    assert "the disk is full" in told(output)


def test_no_network(tmp_path: Path) -> None:
    project = create(tmp_path)
    status, output = project.make(UNREACHABLE)
    assert status != 0
    assert "no network" in told(output)
    assert "install.log" in told(output)
    assert "127.0.0.1" in project.log  # pip's own words are kept for whoever wants them


def test_an_index_without_the_package(tmp_path: Path) -> None:
    project = create(tmp_path)
    (tmp_path / "empty").mkdir()
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "empty"), "PIP_NO_CACHE_DIR": "1"}
    status, output = project.make(offline)
    assert status != 0
    assert "pip found no release of iniconfig==2.3.1" in told(output)


def test_an_unknown_flavour_of_torch(tmp_path: Path) -> None:
    status, output = create(tmp_path).make({"FINETUI_TORCH": "tpu"})
    assert status != 0
    assert "FINETUI_TORCH is 'tpu', and can be cpu or cuda" in told(output)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            ["ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"],
            "disk is full",
        ),
        (["OSError: [Errno 122] Disk quota exceeded"], "disk is full"),
        (
            [
                "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError('"
                "<HTTPSConnection>: Failed to establish a new connection: [Errno -3] Temporary failure in name "
                "resolution')': /simple/torch/",
                "ERROR: Could not find a version that satisfies the requirement torch==2.13.0 (from versions: none)",
                "ERROR: No matching distribution found for torch==2.13.0",
            ],
            "no network",
        ),
        (["SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]'))"], "PIP_CERT"),
        (["ERROR: HTTP error 503 while getting a file"], "error 503"),
        (["ERROR: No matching distribution found for torch==2.13.0+cpu"], "has no torch==2.13.0+cpu"),
        (["ERROR: [Errno 13] Permission denied: 'x'"], "no permission"),
        (["ERROR: something new"], "something new"),
        ([], "it said nothing"),
    ],
)
def test_causes(lines: list[str], words: str) -> None:
    said = pip_output.cause(lines)
    assert words in said
    assert "\n" not in said
    assert len(said) < 240


def test_killed_for_memory() -> None:
    assert "memory ran out" in pip_output.cause(["Installing collected packages: torch"], -9)


def test_a_build_that_is_not_offered_is_told_from_a_lost_network() -> None:
    missing = "ERROR: No matching distribution found for torch==2.13.0+cpu"
    assert pip_output.not_offered([missing], "torch==2.13.0+cpu")
    constrained = "ERROR: Cannot install torch==2.13.0+cpu because these package versions have conflicting dependencies."
    assert pip_output.not_offered([constrained], "torch==2.13.0+cpu")
    assert not pip_output.not_offered([missing], "torch==2.13.0")
    assert not pip_output.not_offered(
        ["WARNING: Retrying … NewConnectionError", missing], "torch==2.13.0+cpu"
    )


def test_debian_without_ensurepip() -> None:
    said = pip_output.venv_cause(
        ["The virtual environment was not created because ensurepip is not", "available."], 1, 12
    )
    assert "python3.12-venv" in said


def test_progress_reads_what_pip_prints() -> None:
    progress = pip_output.Progress()
    for line in (
        "Looking in links: a-folder",
        "Collecting torch==2.13.0+cpu",
        "  Downloading torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl (190.3 MB)",
        "Requirement already satisfied: filelock in a-folder (from torch==2.13.0+cpu) (4.2.12)",
    ):
        progress.feed(line)
    assert (progress.found, progress.installing, progress.download) == (2, 0, "torch, 190.3 MB")
    progress.feed("Installing collected packages: mpmath, sympy, torch")
    assert (progress.installing, progress.download) == (3, "")
