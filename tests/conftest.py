"""What every test runs under: a home of its own, no network for the hub, no usage statistics, no deadlines."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.full_disk import Disk

# Set before any test module is imported, and inherited by every process that a test starts.
_home = Path(tempfile.mkdtemp(prefix="finetui-tests-"))
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ.update(
    FINETUI_HOME=str(_home),
    HF_HUB_OFFLINE="1",
    UNSLOTH_OFFLINE="1",
    UNSLOTH_DISABLE_STATISTICS="1",
    UNSLOTH_AUTO_INSTALL="0",
    UNSLOTH_COMPILE_LOCATION=str(_home / "unsloth-compiled"),
    FINETUI_HUB_SECONDS="60",  # a busy machine answers itself slowly
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",  # tiny models gain nothing from more, and threads that spin stall a busy machine
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk that can be filled."""
    made = Disk(tmp_path / "disk")
    yield made
    made.close()


settings.register_profile(
    "finetui", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)  # a busy machine is slow, and that is no fault
settings.load_profile("finetui")


def _gpu() -> bool:
    tool = shutil.which("nvidia-smi")
    return (
        tool is not None and b"GPU " in subprocess.run([tool, "-L"], capture_output=True, check=False).stdout
    )


# Where there is no GPU, the tests that need one are not collected, rather than skipped or failed.
collect_ignore = [] if _gpu() else ["gpu"]
