"""Quantizes a GGUF with llama.cpp's own library, out of a prebuilt wheel. A program: it runs in a child process.

    python quantize_child.py LIBRARIES BACKEND INPUT OUTPUT TYPE THREADS

TYPE is llama.cpp's number of a file type (`enum llama_ftype`). Exit code 0: done, 2: the library does not load here.
Native code that crashes takes only this process with it.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path


class _Parameters(ctypes.Structure):
    """The head of `llama_model_quantize_params`; the rest is kept as the library's defaults filled it."""

    _fields_ = [
        ("threads", ctypes.c_int32),
        ("file_type", ctypes.c_int32),
        ("rest", ctypes.c_uint64 * 31),
    ]


def main(arguments: list[str]) -> int:
    folder, backend = Path(arguments[0]), Path(arguments[1])
    source, target, file_type, threads = arguments[2], arguments[3], int(arguments[4]), int(arguments[5])
    try:
        for name in ("libgomp.so.1", "libggml-base.so.0"):
            if (folder / name).exists():
                ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
        ggml = ctypes.CDLL(str(folder / "libggml.so.0"), mode=ctypes.RTLD_GLOBAL)
        llama = ctypes.CDLL(str(folder / "libllama.so.0"))
        ggml.ggml_backend_load.restype = ctypes.c_void_p
        ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
        llama.llama_model_quantize_default_params.restype = _Parameters
        quantize = llama.llama_model_quantize
        quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Parameters)]
        quantize.restype = ctypes.c_uint32
        loaded = ggml.ggml_backend_load(str(backend).encode())
    except (OSError, AttributeError) as error:
        print(f"llama.cpp's library does not load: {error}", file=sys.stderr)
        return 2
    if not loaded:
        print("llama.cpp's CPU backend does not load", file=sys.stderr)
        return 2
    if source == "--check":
        return 0
    parameters = llama.llama_model_quantize_default_params()
    parameters.threads, parameters.file_type = threads, file_type
    return 1 if quantize(source.encode(), target.encode(), ctypes.byref(parameters)) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
