"""Snapshots of the machine: what is read, what limits it, and what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from finetui.core import cgroup, system
from finetui.core.system import Gpu, Machine


def test_a_snapshot_of_this_machine(tmp_path: Path) -> None:
    machine = system.snapshot(tmp_path)
    assert 1 <= machine.cores <= (os.cpu_count() or 1)
    assert 0 < machine.memory_total_bytes <= psutil.virtual_memory().total
    assert 0 < machine.memory_available_bytes <= machine.memory_total_bytes
    assert machine.disk_free_bytes is not None and machine.disk_free_bytes > 0
    assert machine.free_bytes > 0 and machine.total_bytes > 0
    again = system.snapshot(tmp_path)
    assert again.cpu_percent is not None and 0 <= again.cpu_percent <= 100 * machine.cores


def test_the_first_processor_reading_is_missing_and_not_zero() -> None:
    script = (
        "from finetui.core import system; print(system.snapshot().cpu_percent, system.snapshot().cpu_percent)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    first, second = done.stdout.split()
    assert first == "None" and second != "None"


def test_disk_of_a_folder_that_is_not_made_yet(tmp_path: Path) -> None:
    assert system.disk_free_bytes(tmp_path / "not" / "yet") is not None
    assert system.disk_free_bytes(Path("/tmp/\0")) is None


def test_without_nvml_there_are_no_gpus(tmp_path: Path) -> None:
    """A machine whose NVML cannot be loaded, and one without the package: no GPU, no error."""
    for body in ("raise ImportError('no NVML here')", "raise OSError('libnvidia-ml.so.1: cannot open')"):
        (tmp_path / "pynvml.py").write_text(body)
        script = "from finetui.core import system; print(system.snapshot().gpus)"
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            check=True,
        )
        assert done.stdout.strip() == "()"


_NVML = """
from types import SimpleNamespace

NVML_TEMPERATURE_GPU, nvmlMemory_v2, KNOWS_V2 = 0, 2, {knows}


class NVMLError(Exception):
    pass


def nvmlDeviceGetMemoryInfo(handle, version=None):
    if version is None:
        return SimpleNamespace(total=80_000, free=79_500, used=500)
    if not KNOWS_V2:
        raise NVMLError("function not found")
    return SimpleNamespace(total=80_000, free=79_500, used=0, reserved=500)


def nvmlInit():
    pass


def nvmlDeviceGetCount():
    return 1


def nvmlDeviceGetHandleByIndex(index):
    return index


def nvmlDeviceGetName(handle):
    return "Card"


def _missing(*arguments):
    raise NVMLError("not supported")


nvmlSystemGetDriverVersion = nvmlDeviceGetUtilizationRates = nvmlDeviceGetTemperature = _missing
nvmlDeviceGetPowerUsage = nvmlDeviceGetEnforcedPowerLimit = _missing
"""


@pytest.mark.parametrize(("knows", "used"), [(True, 0), (False, 500)])
def test_memory_is_counted_as_nvidia_smi_does(tmp_path: Path, knows: bool, used: int) -> None:
    """What the driver keeps for itself is not in use; an old driver that cannot tell it apart is still read."""
    (tmp_path / "pynvml.py").write_text(_NVML.format(knows=knows))
    script = (
        "from finetui.core import system; [gpu] = system.snapshot().gpus; "
        "print(gpu.total_bytes, gpu.used_bytes, gpu.free_bytes, gpu.power_watts)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env={**environment, "PYTHONPATH": str(tmp_path)},
        check=True,
    )
    assert done.stdout.split() == ["80000", str(used), "79500", "None"]


def test_missing_readings_stay_missing() -> None:
    gpu = Gpu(0, "Card", total_bytes=100)
    assert gpu.free_bytes is None and gpu.power_watts is None
    machine = Machine(2, None, 1000, 500, None, (gpu, Gpu(1, "Other", 80, 20)))
    assert machine.has_gpu
    assert machine.free_bytes == 60, "the freest GPU that can be read"
    assert machine.total_bytes == 100
    assert Machine(2, None, 1000, 500, None).free_bytes == 500


def control_group(root: Path, path: str, **files: str) -> None:
    folder = root / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content + "\n")


def test_limits_of_cgroup_v2_and_those_above_it(tmp_path: Path) -> None:
    root, process = tmp_path / "cgroup", tmp_path / "self"
    process.write_text("0::/slurm/job\n")
    control_group(root, "slurm", cpu__max="150000 100000", memory__max="max", memory__current="7")
    control_group(
        root,
        "slurm/job",
        cpu__max="max 100000",
        memory__max="4000",
        memory__current="1500",
        memory__stat="anon 900\ninactive_file 500",
    )
    limits = cgroup.read_limits(root, process)
    assert limits == cgroup.Limits(cores=1.5, memory_bytes=4000, memory_used_bytes=1000)
    assert cgroup.whole_cores(limits, 8) == 2
    assert cgroup.whole_cores(limits, 1) == 1


def test_limits_of_cgroup_v1(tmp_path: Path) -> None:
    root, process = tmp_path / "cgroup", tmp_path / "self"
    process.write_text("4:memory:/box\n3:cpu,cpuacct:/box\n2:devices:/\n")
    control_group(root, "cpu,cpuacct/box", cpu__cfs_quota_us="300000", cpu__cfs_period_us="100000")
    control_group(root, "memory/box", memory__limit_in_bytes="5000", memory__usage_in_bytes="600")
    control_group(root, "memory", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="9")
    assert cgroup.read_limits(root, process) == cgroup.Limits(3.0, 5000, 600)


def test_no_limits_and_broken_files(tmp_path: Path) -> None:
    assert cgroup.read_limits(tmp_path, tmp_path / "none") == cgroup.Limits()
    process = tmp_path / "self"
    process.write_text("nonsense\n0::/../../x\n")
    control_group(tmp_path, "x", cpu__max="a b", memory__max="much")
    assert cgroup.read_limits(tmp_path / "root", process) == cgroup.Limits()
    assert cgroup.whole_cores(cgroup.Limits(), 4) == 4
