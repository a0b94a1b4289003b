"""Makes `.venv` right: nothing to do in most runs, else install, complete or rebuild, one `make` at a time."""

from __future__ import annotations

import fcntl
import os
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import pip_output, stamp
from .display import Display, duration

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
# What an import must show to work before an install counts as finished; Unsloth itself takes too long for here.
MODULES = {
    "torch": "torch",
    "transformers": "transformers",
    "trl": "trl",
    "peft": "peft",
    "datasets": "datasets",
}
MODULES |= {"textual": "textual", "pydantic": "pydantic", "typer": "typer", "pytest": "pytest"}
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_REQUIREMENT")


class InstallError(Exception):
    """The install cannot go on; the text is the one line that the person reads."""


def main(arguments: Sequence[str]) -> int:
    """Make `.venv` ready, with the developers' tools when `--dev` is given; returns the exit status."""
    wanted = [] if "--dev" not in arguments else ["dev.txt"]
    try:
        if problem(wanted) is not None:
            with_lock(wanted)
        return 0
    except InstallError as error:
        print(f"finetui: {error}.", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"finetui: {pip_output.cause([f'ERROR: {error}'])}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nfinetui: stopped. The same command goes on from here.", file=sys.stderr)
        return 130


def problem(extra: list[str]) -> str | None:
    """Why `.venv` is not ready, in a few words; None when it is. Runs no pip: a second start must be instant."""
    if not (VENV / "pyvenv.cfg").exists():
        return "first install"
    found = stamp.read(VENV)
    if found is None:
        return "it was left unfinished"
    if reason := must_rebuild(found):
        return reason
    site = stamp.site_packages(VENV)
    if site is None or not (VENV / "bin" / "finetui").exists() or stamp.damaged(found, site):
        return "something is missing from it"
    if found.gpu_nodes != stamp.gpu_nodes() and not os.environ.get("FINETUI_TORCH"):
        return "the GPU appeared or went"
    lists = [f"{found.torch}.txt", *extra]
    if any(found.lists.get(name) != list_digest(name) for name in lists):
        return (
            "test tools are not in it yet"
            if extra and extra[0] not in found.lists
            else "the requirements changed"
        )
    if found.project != stamp.project_digest(ROOT):
        return "the project's metadata changed"
    return None


def must_rebuild(found: stamp.Stamp | None) -> str | None:
    """Why what lies in `.venv` cannot be completed and has to be made anew; None when it can."""
    site = stamp.site_packages(VENV)
    if site is None:
        return "its Python is gone"
    minor = site.parent.name.removeprefix("python")
    if os.environ.get("PYTHON") and minor != f"{sys.version_info[0]}.{sys.version_info[1]}":
        return f"it has Python {minor}, and PYTHON={os.environ['PYTHON']} is another"
    if found is not None and found.root != str(ROOT):
        return "the folder was moved"
    if found is not None and os.environ.get("FINETUI_TORCH", found.torch) != found.torch:
        return f"it has torch for {found.torch}"
    return None


def with_lock(extra: list[str]) -> None:
    """Bring `.venv` up to date while no other `make` can touch it."""
    display = Display()
    with (ROOT / ".venv.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            display.note("another make is installing into .venv; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if (why := problem(extra)) is not None:
            bring_up_to_date(extra, why, display, lock.fileno())


def bring_up_to_date(extra: list[str], why: str, display: Display, lock: int) -> None:
    """Install, complete or rebuild `.venv`. Raises InstallError with the one line to show."""
    started = time.monotonic()
    old = stamp.read(VENV)
    rebuild = (VENV / "pyvenv.cfg").exists() and must_rebuild(old)
    torch = choose_torch()
    if old is not None and old.torch != torch:
        rebuild = f"it has torch for {old.torch}"
    if old is not None and not rebuild:  # what an earlier `make test` installed stays current with the rest
        extra = extra or [name for name in old.lists if name == "dev.txt"]
    lists = [f"{torch}.txt", *extra]
    display.note(f"installing into .venv with Python {sys.version.split()[0]} ({why})")
    (VENV / stamp.STAMP).unlink(missing_ok=True)
    if old is None or rebuild:
        check_disk(lists)
    if rebuild or stamp.site_packages(VENV) is None:
        make_venv(display)
    site = stamp.site_packages(VENV)
    if site is None:
        raise InstallError(
            "Python's venv module made a .venv that does not run: try another Python (PYTHON=…)"
        )
    for orphan in site.glob("~*"):
        shutil.rmtree(orphan, ignore_errors=True)
    if broken := stamp.remove_broken_distributions(site):
        display.note(f"repairing {', '.join(broken[:4])}{' and more' if len(broken) > 4 else ''}")
    pip = Pip(display, lock)
    install_torch(pip, torch)
    for name in lists:
        label = "test tools" if name == "dev.txt" else "libraries"
        count = len(stamp.requirements(ROOT / "requirements" / name))
        pip.install(label, ["--no-deps", "-r", str(ROOT / "requirements" / name)], count)
    pip.install("finetui itself", ["--no-deps", "--no-build-isolation", "-e", str(ROOT)], 1)
    link_packages()
    check_imports(lists, display)
    shutil.rmtree(VENV / "tmp", ignore_errors=True)
    done = stamp.Stamp(
        root=str(ROOT),
        torch=torch,
        gpu_nodes=stamp.gpu_nodes(),
        project=stamp.project_digest(ROOT),
        lists={name: list_digest(name) for name in lists},
        entries=stamp.entries(site),
    )
    stamp.write(VENV, done)
    display.note(f"ready after {duration(time.monotonic() - started)}")


def list_digest(name: str) -> str:
    """The digest of one pinned list, by its file name."""
    return stamp.digest(stamp.requirements(ROOT / "requirements" / name))


def choose_torch() -> str:
    """`cuda` where an NVIDIA GPU answers, else `cpu`; FINETUI_TORCH decides when it is set."""
    asked = os.environ.get("FINETUI_TORCH", "")
    if asked:
        if asked not in ("cpu", "cuda"):
            raise InstallError(f"FINETUI_TORCH is {asked!r}, and can be cpu or cuda")
        return asked
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "cuda" if stamp.gpu_nodes() and os.path.exists("/proc/driver/nvidia/version") else "cpu"
    try:
        answer = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "cpu"
    return "cuda" if answer.returncode == 0 and "GPU " in answer.stdout else "cpu"


def check_disk(lists: list[str]) -> None:
    """Refuse to start an install that cannot fit, what `.venv` holds already counted in; raises InstallError."""
    needed = sum(stamp.disk_gigabytes(ROOT / "requirements" / name) for name in lists)
    place = VENV if VENV.is_dir() else ROOT
    held = sum(path.lstat().st_size for path in VENV.rglob("*")) if VENV.is_dir() else 0
    free = shutil.disk_usage(place).free
    if (free + held) / 1e9 < needed:
        raise InstallError(
            f"not enough disk: the install needs {needed:g} GB, and {place} has {free / 1e9:.1f} GB free"
        )


def make_venv(display: Display) -> None:
    """Make an empty `.venv`, whatever lay there before. Raises InstallError."""
    display.phase("virtual environment")
    if VENV.is_symlink() and not VENV.exists() or VENV.is_file():
        VENV.unlink()
    # In two steps, since venv hides what ensurepip, the second, says when it fails.
    empty = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)]
    for command in (empty, [str(VENV / "bin" / "python"), "-m", "ensurepip", "--default-pip"]):
        made = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env=environment(),
        )
        if made.returncode:
            display.end("failed")
            lines = made.stdout.splitlines()
            raise InstallError(pip_output.venv_cause(lines, made.returncode, sys.version_info[1]))
    display.end("made")


def environment() -> dict[str, str]:
    """The environment that pip and Python run in: the person's, less what would install somewhere else."""
    kept = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    kept["PIP_USER"] = "0"
    if (
        VENV / "tmp"
    ).is_dir():  # next to where the files end up, so that a small /tmp cannot fail the install
        kept["TMPDIR"] = str(VENV / "tmp")
    return kept


def install_torch(pip: Pip, torch: str) -> None:
    """Install torch in the build that fits the machine, before the list that holds the rest. Raises InstallError.

    The CPU build has a version of its own (`+cpu`) that only some indexes offer; it needs nothing that the list
    lacks. Where it is not to be had, the general build works on a CPU too: it is larger, and needs the CUDA
    libraries that it links to. On a GPU the CPU build, which pip would take for the newer, must not be picked up.
    """
    pins = stamp.requirements(ROOT / "requirements" / f"{torch}.txt")
    pinned = next((line for line in pins if line.startswith("torch==")), None)
    if pinned is None:
        return
    name = pinned.replace("==", " ")
    if torch == "cpu" and sys.platform == "linux":
        if pip.install(f"{name} for the CPU", ["--no-deps", f"{pinned}+cpu"], 1, optional=f"{pinned}+cpu"):
            return
        check_disk(["cuda.txt"])
    general = [
        f"{pinned},!={pinned.removeprefix('torch==')}+cpu",
        "-c",
        str(ROOT / "requirements" / "cuda.txt"),
    ]
    pip.install(f"{name} for CUDA" if torch == "cuda" else f"{name}, general build", general)


class Pip:
    """Runs pip in `.venv`: progress on the screen, its whole output in `.venv/install.log`."""

    def __init__(self, display: Display, lock: int) -> None:
        self._display = display
        self._lock = lock
        self._log = VENV / "install.log"

    def install(self, label: str, arguments: list[str], count: int = 0, optional: str = "") -> bool:
        """Run one `pip install`; `count` is how many packages it is about, 0 when nobody knows.

        Returns False when `optional` is the requirement that the index turned out not to have.
        Raises InstallError with the cause when pip fails in any other way.
        """
        (VENV / "tmp").mkdir(exist_ok=True)
        command = [
            str(VENV / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "--no-input",
            "--progress-bar",
            "off",
        ]
        command += ["--no-warn-script-location", "--disable-pip-version-check", *arguments]
        self._display.phase(label)
        with self._log.open("ab") as log:
            log.write(("\n$ " + " ".join(command) + "\n").encode())
            # The lock travels into pip: if this process is killed, no second make starts beside a pip still at work.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment() | {"PYTHONUNBUFFERED": "1"},
                pass_fds=[self._lock],
            )
            try:
                progress = self._follow(process, log, count)
                status = process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if status == 0:
            self._display.end(f"{progress.installing or 'no'} new of {count or progress.found} packages")
            return True
        if optional and pip_output.not_offered(progress.lines, optional):
            self._display.end("not offered here")
            return False
        self._display.end("failed")
        raise InstallError(f"{pip_output.cause(progress.lines, status)} (details: .venv/install.log)")

    def _follow(self, process: subprocess.Popen[bytes], log, count: int) -> pip_output.Progress:
        progress = pip_output.Progress()
        site = stamp.site_packages(VENV) or VENV
        before = len(list(site.glob("*.dist-info")))
        rest = b""
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if selector.select(timeout=0.5):
                    data = os.read(process.stdout.fileno(), 65536)
                    if not data:
                        return progress
                    log.write(data)
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        progress.feed(line.decode("utf-8", "replace").rstrip())
                if progress.installing:
                    written = len(list(site.glob("*.dist-info"))) - before
                    detail = f"writing {min(max(0, written), progress.installing - 1)}/{progress.installing} packages"
                else:
                    detail = f"{progress.found}/{count} packages" if count else f"{progress.found} packages"
                    detail += f", {progress.download}" if progress.download else ""
                self._display.update(detail)


def link_packages() -> None:
    """Give tools that read source the names that the installed package has: `.venv/link/finetui/{core,tui}`."""
    folder = VENV / "link" / "finetui"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("core", "tui"):
        link = folder / name
        if not link.is_symlink() or os.readlink(link) != str(ROOT / name):
            link.unlink(missing_ok=True)
            link.symlink_to(ROOT / name)


def check_imports(lists: list[str], display: Display) -> None:
    """Import what was installed, in the new Python. Raises InstallError with the first that fails."""
    pinned = {
        line.split("==")[0] for name in lists for line in stamp.requirements(ROOT / "requirements" / name)
    }
    modules = ["finetui.core", "finetui.tui", *(module for name, module in MODULES.items() if name in pinned)]
    display.phase("checking that it imports")
    script = f"import importlib\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
    tried = subprocess.run(
        [str(VENV / "bin" / "python"), "-c", script],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    if tried.returncode:
        display.end("failed")
        last = (tried.stderr.strip().splitlines() or [f"exit status {tried.returncode}"])[-1]
        raise InstallError(f"the libraries do not load ({last[:160]}): run `make clean`, then this again")
    display.end(f"{len(modules)} modules")
